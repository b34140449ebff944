"""A QMP connection that hangs, lies, answers late, breaks, or is none."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.vm_migration.machine.qemu.spoken_qmp import Answer, speaking
from vm_migration.machine.errors import MachineGone, MachineRefused
from vm_migration.machine.qemu.answers import Status
from vm_migration.machine.qemu.session import QmpSession

SHORT = 0.2


def running(_command: str, _arguments: Mapping[str, object]) -> Answer:
    return {"return": {"status": "running", "running": True}}


async def test_an_answer_is_of_the_kind_that_was_asked_for(tmp_path: Path) -> None:
    async with speaking(tmp_path / "qmp", running):
        session = QmpSession(tmp_path / "qmp")
        await session.open()
        assert await session.ask("query-status", Status) == Status("running", running=True)
        assert session.peer > 0
        await session.close()


@pytest.mark.parametrize(
    "lie",
    [
        {"return": {"status": 7, "running": True}},
        {"return": {"running": True}},
        {"return": []},
        {"return": "running"},
        {"something": "else"},
        {"error": "no such"},
    ],
)
async def test_an_answer_that_is_none_is_a_machine_that_is_gone(tmp_path: Path, lie: Mapping[str, object]) -> None:
    async with speaking(tmp_path / "qmp", lambda _command, _arguments: lie):
        session = QmpSession(tmp_path / "qmp")
        await session.open()
        with pytest.raises(MachineGone):
            await session.ask("query-status", Status)
        assert not session.connected


async def test_a_refusal_carries_qemus_own_words_and_the_connection_stays(tmp_path: Path) -> None:
    refusal = {"error": {"class": "GenericError", "desc": "No migration happened"}}
    async with speaking(tmp_path / "qmp", lambda _command, _arguments: refusal):
        session = QmpSession(tmp_path / "qmp")
        await session.open()
        with pytest.raises(MachineRefused, match="No migration happened"):
            await session.tell("migrate_cancel")
        assert session.connected
        await session.close()


async def test_an_answer_that_comes_late_is_taken_for_no_other(tmp_path: Path) -> None:
    answers: list[Answer] = [None, {"return": {"status": "paused", "running": False}}]
    async with speaking(tmp_path / "qmp", lambda _command, _arguments: answers.pop(0)) as spoken:
        session = QmpSession(tmp_path / "qmp", deadline=SHORT)
        await session.open()
        with pytest.raises(MachineGone, match="does not answer"):
            await session.ask("query-status", Status)
        with pytest.raises(MachineGone):  # nothing is asked over a connection on which an answer is still to come
            await session.ask("query-status", Status)
        await session.open()
        spoken.late()
        assert not (await session.ask("query-status", Status)).running
        await session.close()


async def test_who_does_not_greet_is_no_qemu(tmp_path: Path) -> None:
    async with speaking(tmp_path / "qmp", running) as spoken:
        spoken.greets.clear()
        session = QmpSession(tmp_path / "qmp", deadline=SHORT)
        with pytest.raises(MachineGone, match="greets nobody"):
            await session.open()
        spoken.greets.set()


@pytest.mark.parametrize("said", [{}, {"QMP": 1}, {"event": "STOP"}, [], "SSH-2.0"])
async def test_who_greets_otherwise_is_no_qemu(tmp_path: Path, said: object) -> None:
    async with speaking(tmp_path / "qmp", running) as spoken:
        spoken.greeting = said
        session = QmpSession(tmp_path / "qmp", deadline=SHORT)
        with pytest.raises(MachineGone):
            await session.open()


async def test_nobody_listens(tmp_path: Path) -> None:
    session = QmpSession(tmp_path / "qmp")
    with pytest.raises(MachineGone, match="Nobody speaks QMP"):
        await session.open()
    with pytest.raises(MachineGone):
        await session.tell("stop")


async def test_one_that_hangs_up_in_the_middle_is_gone(tmp_path: Path) -> None:
    def hang_up(_command: str, _arguments: Mapping[str, object]) -> Answer:
        spoken.hang_up()
        return None

    async with speaking(tmp_path / "qmp", hang_up) as spoken:
        session = QmpSession(tmp_path / "qmp")
        await session.open()
        with pytest.raises(MachineGone, match="gone in the middle of cont"):
            await session.tell("cont")


async def test_events_are_heard_before_the_answer_that_follows_them(tmp_path: Path) -> None:
    heard: list[str] = []

    def stop(_command: str, _arguments: Mapping[str, object]) -> Answer:
        for event in ("STOP", "RESUME", "STOP"):
            spoken.event(event)
        return {"return": {}}

    async with speaking(tmp_path / "qmp", stop) as spoken:
        session = QmpSession(tmp_path / "qmp", heard.append)
        await session.open()
        async with asyncio.timeout(5):
            await session.tell("stop")
        assert heard == ["STOP", "RESUME", "STOP"]
        await session.close()
