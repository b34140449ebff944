"""The port to a machine process, over its real socket."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vmm.tiny_machine import SIZE, tiny_commands
from vm_migration.machine.errors import CutOff, MachineGone
from vm_migration.machine.software import SoftwareMachine
from vmm.process.commands import Commands
from vmm.process.control import CONTROL_SOCKET
from vmm.process.server import MachineServer


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Commands]:
    with tiny_commands(pid=os.getpid()) as commands:
        server = MachineServer(commands, tmp_path / CONTROL_SOCKET)
        thread = threading.Thread(target=server.run)
        thread.start()
        yield commands
        server.stop()
        thread.join(10)
        server.close()


def break_connection(machine: SoftwareMachine) -> None:
    channel = machine._channel  # what a machine that was silent for too long leaves
    assert channel is not None
    with socket.socket(fileno=os.dup(channel.fileno())) as copy:
        copy.shutdown(socket.SHUT_RDWR)


async def test_a_machine_is_commanded_again_after_its_connection_broke(served: Commands, tmp_path: Path) -> None:
    machine = SoftwareMachine(tmp_path)
    await machine.attach(1, 3)
    stop = await machine.pause(for_attempt=True)
    break_connection(machine)
    with pytest.raises(MachineGone):
        await machine.run(1)
    assert await machine.confirm_stopped() == stop.pause
    await machine.run(1)
    assert await machine.confirm_stopped() is None
    await machine.close()


async def test_a_newer_controller_stays_in_command_whoever_reconnects(served: Commands, tmp_path: Path) -> None:
    old, new = SoftwareMachine(tmp_path), SoftwareMachine(tmp_path)
    await old.attach(1, 3)
    await new.attach(1, 4)
    break_connection(old)
    with pytest.raises(MachineGone):
        await old.describe()
    with pytest.raises(CutOff):
        await old.pause(for_attempt=False)
    assert (await old.describe()).controller == 4  # it may look
    await new.pause(for_attempt=False)
    await old.close()
    await new.close()


async def test_ram_comes_as_a_mapping_of_the_same_memory(served: Commands, tmp_path: Path) -> None:
    machine = SoftwareMachine(tmp_path)
    await machine.attach(1, 1)
    await machine.pause(for_attempt=True)
    ram = await machine.ram()
    assert ram.size == SIZE
    assert bytes(ram.data[:4096]) == bytes(served.machine.memory.block.data[:4096])
    ram.close()
    await machine.close()


async def test_a_closed_port_answers_as_a_machine_that_is_gone(served: Commands, tmp_path: Path) -> None:
    machine = SoftwareMachine(tmp_path)
    await machine.describe()
    await machine.close()
    with pytest.raises(MachineGone):
        await machine.describe()


async def test_nobody_listens(tmp_path: Path) -> None:
    machine = SoftwareMachine(tmp_path)
    with pytest.raises(MachineGone):
        await machine.describe()
    await machine.close()
