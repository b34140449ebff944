"""The last agent that started is the host's; one that finds another in its seat knows it."""

import asyncio
from pathlib import Path

import pytest

from vm_migration.daemon import seat
from vm_migration.daemon.seat import Seat


async def test_the_last_one_has_the_seat_and_the_one_before_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seat, "_LOOK_EVERY", 0.01)
    older, newer, other_side = Seat(tmp_path, "dest"), Seat(tmp_path, "dest"), Seat(tmp_path, "source")
    older.take()
    other_side.take()
    assert not older.taken
    newer.take()
    async with asyncio.timeout(10):
        await older.lost()
    assert not newer.taken
    assert not other_side.taken


def test_a_file_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    one = Seat(tmp_path, "dest")
    one.take()
    (tmp_path / "dest-agent.life").unlink()
    assert not one.taken
