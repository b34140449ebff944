"""A program that takes the place of another: until the guest works, and not after, the one before can have it back."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.vmm.tiny_machine import tiny_commands
from vfio_host.interface.calls import AnyCall, Done, IoasChangeProcess, Irqfd
from vmm.assembly.machine_state import Origin
from vmm.process import main as module
from vmm.process.commands import Commands
from vmm.process.control import SPECIFICATION_FILE
from vmm.process.image import Image
from vmm.process.interrupts import Interrupts
from vmm.process.update import Update
from vmm.update.documents import EarlyDocument, StateDocument, encode
from vmm.update.kept import Asker, Kept, Stop, write
from vmm.vfio.host_port import HostCallFailed, OpenObject

MACHINE = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"
REFUSAL = HostCallFailed(IoasChangeProcess(), errno.ENOMEM)


class GivenBack(Exception):
    """Stands for the execve that ends a program."""


class Kvm:
    """Implements `vmm.vfio.host_port.HostPort` and `Descriptor` for interrupts; counts those that are taken."""

    def __init__(self) -> None:
        self.taken = 0

    def open(self, _path: object) -> OpenObject:
        return OpenObject(0, self)

    def call(self, call: AnyCall, _descriptors: object = ()) -> Done:
        assert isinstance(call, Irqfd)
        self.taken += 1 if call.assign else -1
        return Done()

    def batch(self, made: object, _descriptors: object = ()) -> NoReturn:
        raise AssertionError(made)

    def register_memory(self, *_: object) -> NoReturn:
        raise AssertionError

    def report_writes(self) -> None:
        """There is no witness."""

    def close(self) -> None:
        """Nothing is open."""


class Adopted:
    """A machine that is taken over, and whose mappings the host refuses, or does not."""

    def __init__(self, failure: Exception | None) -> None:
        self.failure = failure

    def take_over(self, _state: StateDocument, *, again: bool = False) -> None:
        assert not again

    def settle(self) -> None:
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def kept() -> Iterator[int]:
    """What the image before left of a machine that ran."""
    early = EarlyDocument(1, MACHINE, 0, 0, (), (), ())
    state = StateDocument(1, 1, 1, 1, -1, Origin("mixture", (), ""), b"", b"", ())
    stop = Stop(1, was_running=True, last_executed_ns=0)
    number = write(Kept(1, encode(early), encode(state), (), "t", stop, Asker(2, 1, 1)))
    yield number
    os.close(number)


def take_place(monkeypatch: pytest.MonkeyPatch, folder: Path, kept: int, adopted: Adopted, commands: Commands) -> None:
    def give_back(*_: object) -> None:
        raise GivenBack

    (folder / SPECIFICATION_FILE).write_bytes(b"")
    monkeypatch.setattr(module, "parse_specification", lambda _text: None)
    monkeypatch.setattr(module, "_adopted", lambda *_: (adopted, commands))
    monkeypatch.setattr(Image, "give_back", give_back)
    module.take_place(folder, MACHINE, kept, ("former",), "")


def test_a_program_that_fails_before_the_guest_works_gives_the_process_back_without_its_interrupts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: int
) -> None:
    with tiny_commands(incoming=True) as commands:
        kvm = Kvm()
        interrupts = Interrupts(kvm, (3, 4))
        monkeypatch.setattr(commands, "_update", Update(commands.machine, MACHINE, interrupts))
        with pytest.raises(GivenBack):
            take_place(monkeypatch, tmp_path, kept, Adopted(REFUSAL), commands)
        assert (kvm.taken, interrupts.taken, commands.machine.running) == (0, False, False)


def test_a_program_that_fails_once_the_guest_has_worked_gives_nothing_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: int
) -> None:
    """The one before would run it a second time from a state that is over."""

    def fails_after(_now: int) -> NoReturn:
        raise REFUSAL

    with tiny_commands(incoming=True) as commands:
        monkeypatch.setattr(commands.machine, "step", fails_after)
        with pytest.raises(HostCallFailed):
            take_place(monkeypatch, tmp_path, kept, Adopted(None), commands)
