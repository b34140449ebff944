"""What QEMU is asked of a guest's writes, and what its answers mean."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vm_migration.machine.qemu.spoken_qmp import Answer, speaking
from vm_migration.machine.errors import MachineGone, MachineRefused
from vm_migration.machine.qemu.session import QmpSession
from vm_migration.machine.qemu.writes import ask, begin, samples_per_gib, seconds_of
from vmm.process.sampled_writes import WritesMeasured

GIB = 1 << 30


@given(st.integers(1, 10_000))
def test_a_window_is_never_shorter_than_it_was_asked_for_and_less_than_a_second_longer(window_ms: int) -> None:
    assert 1 <= seconds_of(window_ms) <= 10
    assert window_ms <= 1000 * seconds_of(window_ms) < window_ms + 1000


@given(st.integers(1 << 20, 16 << 40))
def test_qemu_is_asked_for_as_many_samples_as_it_takes_and_no_more_than_are_needed(ram_bytes: int) -> None:
    asked = samples_per_gib(ram_bytes)
    assert 128 <= asked <= 16384
    assert asked == 128 or asked * ram_bytes <= 65536 * GIB


async def answered(folder: Path, answer: Answer) -> WritesMeasured:
    def say(command: str, arguments: Mapping[str, object]) -> Answer:
        if command == "calc-dirty-rate":
            assert arguments == {"calc-time": 2, "sample-pages": 16384}
            return {"return": {}}
        return answer

    async with speaking(folder / "qmp", say):
        session = QmpSession(folder / "qmp")
        await session.open()
        try:
            await begin(session, 1500, GIB)
            return await ask(session)
        finally:
            await session.close()


async def test_a_measurement_is_told_when_it_has_ended(tmp_path: Path) -> None:
    told = {"status": "measured", "start-time": 7, "calc-time": 2, "sample-pages": 16384, "mode": "page-sampling"}
    ended = WritesMeasured(ended=True, window_ms=2000, bytes_per_s=5 << 20)
    assert await answered(tmp_path, {"return": {**told, "dirty-rate": 5}}) == ended
    lasts = await answered(tmp_path, {"return": {**told, "status": "measuring"}})
    assert not lasts.ended


async def test_what_was_never_measured_is_refused_and_what_is_no_answer_is_none(tmp_path: Path) -> None:
    with pytest.raises(MachineRefused, match="Nobody has asked"):
        await answered(tmp_path, {"return": {"status": "unstarted", "start-time": 0, "calc-time": 0}})
    with pytest.raises(MachineGone):
        await answered(tmp_path, {"return": {"status": "measured", "dirty-rate": "fast"}})
