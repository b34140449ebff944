"""A machine whose update fails in a bad way: it is whole again in the process that had it, or nobody runs it."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.rehearsal.side import Side, assembled_side, boot
from lab.scenario import Scenario, check_scenario
from vfio_host.interface.calls import IoasChangeProcess
from vmm.assembly.machine import Machine
from vmm.assembly.machine_state import InvalidState
from vmm.process import update as module
from vmm.process.fence import Fence
from vmm.process.image import Image
from vmm.process.successor import NotTakenOver, Unanswered
from vmm.process.update import Update
from vmm.update.documents import StateDocument
from vmm.update.kept import Asker, Stop
from vmm.update.ownership import abandon, take_back
from vmm.vfio.host_port import HostCallFailed

NAME = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"
STOP = Stop(1, was_running=True, last_executed_ns=0)
FAILURES = [
    NotTakenOver("refused"), Unanswered("silent"), HostCallFailed(IoasChangeProcess(), errno.ENOMEM),
    InvalidState("none"), MemoryError(), OSError(errno.EMFILE, "too many"),
]  # fmt: skip


class Other:
    """The process that takes over, as the one that has the machine meets it: it fails in some way."""

    def __init__(self) -> None:
        self.failure: Exception = NotTakenOver("refused")
        self.closed = False

    def hand_over(self, _state: StateDocument, _patience: float) -> None:
        raise self.failure

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Other:
    """Stand in for the process, and for descriptors, which objects of a host in this process have not."""
    made = Other()
    monkeypatch.setattr(module, "Successor", lambda *_: made)
    monkeypatch.setattr(module, "for_another_process", lambda _machine: {})
    monkeypatch.setattr(module, "numbers_of", lambda *_: Numbers())
    return made


class Numbers(dict[str, int]):
    """A number for every name."""

    def __missing__(self, _name: str) -> int:
        return 2


def scenario() -> Scenario:
    device: Mapping[str, object] = {
        "name": "qat0", "model": "qat", "address": "00:04.0", "dma_rate": "32MiB/s", "backend": "type1",
    }  # fmt: skip
    machine = {
        "memory": {"size": "64MiB"},
        "guest": {"cpu_dirty_rate": "4MiB/s", "working_set": "4MiB"},
        "viommu": {"model": "none"},
        "device": [{**device, "enable_migration": "on"}],
    }
    document = {"name": "failing", "title": "Failing", "machine": machine, "expect": {"outcome": "completed"}}
    return check_scenario(document, "failing")


@contextmanager
def offered(image: Image | None = None) -> Iterator[tuple[Side, Update]]:
    """Yield a machine that runs, on type1, and is offered to the other process."""
    with assembled_side(scenario()) as side:
        boot(side, 1)
        side.world.run_for(50)
        update = Update(side.machine, NAME, image=image)
        update.offer(Path("/nowhere"))
        yield side, update


def has_every_address(machine: Machine) -> bool:
    """Tell whether the host knows an address for every mapping: it lets go only of what it has."""
    try:
        abandon(machine)
    except HostCallFailed:
        return False
    return True


def refused_once(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = iter([HostCallFailed(IoasChangeProcess(), errno.ENOMEM)])

    def taken_back(machine: Machine, mappings: tuple[tuple[tuple[int, int, int, bool], ...], ...]) -> None:
        for refusal in refusals:
            raise refusal
        take_back(machine, mappings)

    monkeypatch.setattr(module, "take_back", taken_back)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_whatever_fails_the_machine_runs_on_with_every_address(other: Other, failure: Exception) -> None:
    other.failure = failure
    with offered() as (side, update):
        with pytest.raises(NotTakenOver, match=r"\w"):
            update.hand_over(Fence(), STOP, 1.0)
        assert (side.machine.running, update.handed_over, other.closed) == (True, False, True)
        assert has_every_address(side.machine)


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.usefixtures("other")
def test_whatever_fails_the_program_stays_with_every_address(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fails(*_: object) -> None:
        raise failure

    monkeypatch.setattr(Image, "replace", fails)
    with offered(Image(Path("/nowhere"), NAME)) as (side, update):
        with pytest.raises(NotTakenOver, match=r"\w"):
            update.replace_image(("program",), Fence(), STOP, asker=Asker(2, 1, 1), instance="t")
        assert (side.machine.running, update.handed_over) == (True, False)
        assert has_every_address(side.machine)


@pytest.mark.usefixtures("other")
def test_a_machine_that_could_not_be_taken_back_stands_still_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    refused_once(monkeypatch)
    with offered() as (side, update):
        with pytest.raises(HostCallFailed, match="ENOMEM"):
            update.hand_over(Fence(), STOP, 1.0)
        assert (side.machine.running, update.handed_over) == (False, True)
        update.have_again()
        assert not update.handed_over
        assert has_every_address(side.machine)


def test_what_a_silent_process_made_its_own_too_late_is_taken_back_by_the_run_that_follows(other: Other) -> None:
    other.failure = Unanswered("silent")
    with offered() as (side, update):
        with pytest.raises(NotTakenOver):
            update.hand_over(Fence(), STOP, 1.0)
        abandon(side.machine)  # as where the other registered addresses, and ended
        update.have_again()
        assert has_every_address(side.machine)
        assert side.machine.running


def test_what_was_refused_is_taken_back_once(other: Other) -> None:
    other.failure = NotTakenOver("refused")
    with offered() as (side, update):
        with pytest.raises(NotTakenOver):
            update.hand_over(Fence(), STOP, 1.0)
        abandon(side.machine)
        update.have_again()
        assert not has_every_address(side.machine)


def test_an_offer_that_came_to_nothing_is_over_when_the_machine_is_run(other: Other) -> None:
    with offered() as (_, update):
        update.have_again()
        assert other.closed


def test_no_file_says_that_a_machine_waits_whose_memory_could_not_be_flushed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Update, "require_unblocked", lambda *_: None)
    with assembled_side(scenario()) as side:
        boot(side, 1)
        side.world.run_for(50)
        flushed = os.fsync

        def fails_for_memory(descriptor: int) -> None:
            if descriptor == side.block.descriptor:
                raise OSError(errno.EIO, "memory")
            flushed(descriptor)

        monkeypatch.setattr(os, "fsync", fails_for_memory)
        with pytest.raises(NotTakenOver, match="memory"):
            Update(side.machine, NAME).leave(tmp_path / "waits", Fence(), STOP)
        assert list(tmp_path.iterdir()) == []
        assert side.machine.running
