"""A machine's process is the same, whoever starts it: the agent itself, or a service manager that knows neither."""

import asyncio
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from vm_migration.machine.errors import LaunchFailed
from vm_migration.machine.launch import launch, take_away
from vm_migration.machine.run_directory import RunDirectory
from vm_migration.machine.software import SoftwareMachine
from vm_migration.machine.starting import OwnSession, OwnUnit, Starter
from vm_migration.machine.unit_process import MAX_REQUEST, request_bytes
from vmm.assembly.specification import check_specification

SPECIFICATION = check_specification({"name": "unit", "memory": {"size": "64MiB"}, "viommu": {"model": "none"}}, "")
PROGRAM = [sys.executable, "-m", "vm_migration.machine.unit_process"]
SECONDS = 30.0


class Manager:
    """What a socket unit with Accept=yes is: every connection is the stdin of a process that is nobody's child here."""

    def __init__(self, place: Path, environment: dict[str, str]) -> None:
        self.place = place
        self._environment = environment
        self.started: list[subprocess.Popen[bytes]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(place))
        self._listener.listen()
        self._serving = threading.Thread(target=self._serve)
        self._serving.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # it was shut down
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    self.started.append(subprocess.Popen(PROGRAM, stdin=connection.fileno(), env=self._environment))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._serving.join()
        self._listener.close()
        for process in self.started:
            process.kill()
            process.wait()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    served = Manager(tmp_path / "units.sock", {"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[3])})
    yield served
    served.close()


@pytest.fixture(params=["session", "unit"])
def starter(request: pytest.FixtureRequest) -> Starter:
    if request.param == "session":
        return OwnSession()
    manager: Manager = request.getfixturevalue("manager")
    return OwnUnit(manager.place)


async def test_a_machine_comes_up_answers_and_goes_whoever_started_it(tmp_path: Path, starter: Starter) -> None:
    run = RunDirectory(tmp_path / "run")
    place = await launch(run, uuid4(), SPECIFICATION, incoming=False, starter=starter)
    assert place.alive()
    machine = SoftwareMachine(place.path)
    await machine.attach(1, 1)
    assert (await machine.describe()).run_state == "running"
    await take_away(place, machine)
    await machine.close()
    assert list(run.all()) == []


async def test_one_that_does_not_come_up_says_why_and_leaves_nothing(tmp_path: Path, starter: Starter) -> None:
    run = RunDirectory(tmp_path / "run")
    missing = str(tmp_path / "missing.img")
    document = {"name": "unit", "memory": {"size": "64MiB", "image": missing}, "viommu": {"model": "none"}}
    with pytest.raises(LaunchFailed, match=r"missing\.img"):
        await launch(run, uuid4(), check_specification(document, ""), incoming=False, starter=starter)
    assert list(run.all()) == []


async def test_one_whose_descriptors_are_closed_before_it_is_known_ends(tmp_path: Path, starter: Starter) -> None:
    reading, ours = os.pipe()
    said, writing = os.pipe()
    arguments = ["--socket", str(tmp_path / "host.sock"), "--configuration", '{"devices":[]}', "--hold"]
    with (tmp_path / "log").open("wb") as log:
        pid = await starter.start("vfio_host.process.main", arguments, (reading, writing, log.fileno()))
    ended = os.pidfd_open(pid)
    os.close(reading)
    os.close(writing)
    assert json.loads(await asyncio.to_thread(os.read, said, 1000))["pid"] == pid
    os.close(ours)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    assert await asyncio.to_thread(poll.poll, SECONDS * 1000)
    os.close(said)
    os.close(ended)


async def test_a_service_manager_that_does_not_listen_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(LaunchFailed, match=r"nowhere\.sock.*systemctl status viaduct-machine\.socket"):
        await launch(run, uuid4(), SPECIFICATION, incoming=True, starter=OwnUnit(tmp_path / "nowhere.sock"))
    assert list(run.all()) == []


def asked_for(packet: bytes, descriptors: int) -> tuple[int, str, bytes]:
    """Return what becomes of a request: exit code, the unit's log, and the answer."""
    agent, unit = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with agent, unit, Path(os.devnull).open("r+b") as nothing:
        process = subprocess.Popen(PROGRAM, stdin=unit.fileno(), stderr=subprocess.PIPE, text=True)
        unit.close()
        socket.send_fds(agent, [packet], [nothing.fileno()] * descriptors)
        _, log = process.communicate(timeout=SECONDS)
        return process.returncode, log, agent.recv(100)


@pytest.mark.parametrize(
    ("packet", "descriptors"),
    [
        (b"", 3),
        (b"\xff", 3),
        (b"[]", 3),
        (b'{"module": "os", "arguments": []}', 3),
        (b'{"module": ["vmm.process.main"], "arguments": []}', 3),
        (b'{"module": "vmm.process.main"}', 3),
        (b'{"module": "vmm.process.main", "arguments": "--help"}', 3),
        (b'{"module": "vmm.process.main", "arguments": [1]}', 3),
        (request_bytes("vmm.process.main", ["--help"]), 2),
    ],
)
def test_nothing_but_a_machines_process_is_started(packet: bytes, descriptors: int) -> None:
    code, log, answer = asked_for(packet, descriptors)
    assert (code, answer) == (2, b"")
    assert log.startswith("Nothing was started: ")
    assert log.count("\n") == 1


def test_nothing_is_started_for_an_agent_that_is_gone_by_then() -> None:
    agent, unit = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with unit, Path(os.devnull).open("r+b") as nothing:
        with agent:
            socket.send_fds(agent, [request_bytes("vmm.process.main", ["--help"])], [nothing.fileno()] * 3)
        process = subprocess.run(PROGRAM, stdin=unit.fileno(), capture_output=True, timeout=SECONDS, check=False)
    assert process.returncode == 2


def test_a_request_fits_into_a_packet_or_is_refused() -> None:
    local, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with local, other:
        largest = request_bytes("m", ["x" * (MAX_REQUEST - 100)])
        assert local.send(largest) == len(largest)
    with pytest.raises(OSError, match=str(MAX_REQUEST)):
        request_bytes("m", ["x" * MAX_REQUEST])
