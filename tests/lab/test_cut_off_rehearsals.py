"""Rehearsals in a process of their own that are not wanted any more, because something else of the matrix failed."""

import asyncio
from pathlib import Path

import pytest

from lab import matrix

MUCH = 1_000_000
"""Bytes, more than a reader takes that nobody reads from: it pauses, and the end of its process would not be told."""


async def test_one_that_has_much_to_say_at_its_end_is_ended_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, begun = tmp_path / "viaduct", tmp_path / "begun"
    talks = f"trap 'head -c {MUCH} /dev/zero; exit 0' TERM"
    program.write_text(f"#!/bin/sh\n{talks}\nmkfifo {begun}\necho > {begun}\nwhile :; do sleep 0.05; done\n")
    program.chmod(0o755)
    monkeypatch.setattr(matrix, "program", lambda _name: str(program))
    rest = asyncio.create_task(matrix.rehearsed([]))
    async with asyncio.timeout(30):
        while not begun.exists():  # noqa: ASYNC110 - a file tells nobody that it is there
            await asyncio.sleep(0.01)
        await asyncio.to_thread(begun.read_text)
    rest.cancel()
    ended, _ = await asyncio.wait({rest}, timeout=10)
    assert ended == {rest}
    assert rest.cancelled()
