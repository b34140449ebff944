"""The two ends of the socket of an update: more descriptors than a message takes, and either end that goes."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest

from vfio_host.interface.channel import close_all, connect, listen
from vmm.assembly.machine_state import Origin
from vmm.process.predecessor import Predecessor, wait_at
from vmm.process.successor import NotTakenOver, Successor
from vmm.update.documents import EarlyDocument, InvalidHandover, StateDocument

STATE = StateDocument(1, 1, 1, 1, -1, Origin("mixture", (), ""), b"", b"", ())


def document(names: int) -> EarlyDocument:
    return EarlyDocument(1, "machine", 0, 0, (), (), tuple(f"name{index}" for index in range(names)))


class Waiting:
    """A process that waits to take over, in a thread."""

    def __init__(self, path: Path) -> None:
        self.path, self.failure = path, list[InvalidHandover]()
        self.listening, self.came = threading.Event(), Queue[Predecessor]()
        self.thread = threading.Thread(target=self._wait)
        self.thread.start()
        assert self.listening.wait(10)

    def _wait(self) -> None:
        try:
            self.came.put(wait_at(self.path, self.listening.set))
        except InvalidHandover as error:
            self.failure.append(error)


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Waiting]:
    made = Waiting(tmp_path / "update.sock")
    yield made
    with contextlib.suppress(Exception):
        connect(made.path, 1).close()
    made.thread.join(10)


@pytest.mark.parametrize("count", [1, 32, 33, 100])
def test_every_descriptor_arrives_in_its_order(waiting: Waiting, count: int) -> None:
    numbers = [os.eventfd(index) for index in range(count)]
    old = Successor(waiting.path, document(count), tuple(numbers))
    new = waiting.came.get(timeout=10)
    found, received = new.receive_early()
    assert found == document(count)
    assert [os.eventfd_read(number) for number in received[1:]] == list(range(1, count))
    for end in (old, new):
        end.close()
    close_all([*numbers, *received])
    assert not waiting.path.exists()


def test_the_answer_says_whether_all_was_taken_over(waiting: Waiting) -> None:
    old = Successor(waiting.path, document(0), ())
    new = waiting.came.get(timeout=10)
    new.receive_early()
    new.answer()  # both ends in one thread: the answer waits before it is asked for
    old.hand_over(STATE, 10)
    assert new.receive_state() == STATE
    new.answer("no such guest")
    with pytest.raises(NotTakenOver, match="no such guest"):
        old.hand_over(STATE, 10)
    for end in (old, new):
        end.close()


def test_an_end_that_is_gone_is_told_by_the_other(waiting: Waiting) -> None:
    old = Successor(waiting.path, document(0), ())
    new = waiting.came.get(timeout=10)
    new.receive_early()
    new.close()
    with pytest.raises(NotTakenOver, match="does not answer"):
        old.hand_over(STATE, 10)
    old.close()


def test_an_offer_that_is_withdrawn_is_no_state(waiting: Waiting) -> None:
    old = Successor(waiting.path, document(0), ())
    new = waiting.came.get(timeout=10)
    new.receive_early()
    old.close()
    with pytest.raises(InvalidHandover, match="is gone"):
        new.receive_state()
    new.close()


def test_a_successor_that_says_nothing_costs_its_patience_and_no_more(waiting: Waiting) -> None:
    old = Successor(waiting.path, document(0), ())
    new = waiting.came.get(timeout=10)
    with pytest.raises(NotTakenOver, match="does not answer"):
        old.hand_over(STATE, 0.01)
    for end in (old, new):
        end.close()


def test_descriptors_that_do_not_come_are_not_waited_for(waiting: Waiting) -> None:
    eventfd = os.eventfd(0)
    old = Successor(waiting.path, document(40), ())
    new = waiting.came.get(timeout=10)
    found, received = new.receive_early()
    assert (len(found.descriptors), received) == (40, [])
    for end in (old, new):
        end.close()
    os.close(eventfd)


@pytest.fixture
def starter() -> Iterator[tuple[int, list[int]]]:
    """A pipe's end that a process waits by, and the other, which whoever started it has while it is there."""
    end, others = os.pipe()
    there = [others]
    yield end, there
    close_all([end, *there])


def gone(there: list[int]) -> None:
    os.close(there.pop())


def test_a_process_waits_for_nobody_once_whoever_started_it_is_gone(
    tmp_path: Path, starter: tuple[int, list[int]]
) -> None:
    end, there = starter
    with pytest.raises(InvalidHandover, match="started this process was gone"):
        wait_at(tmp_path / "update.sock", lambda: gone(there), end)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_offered_a_machine_ends_with_whoever_started_it(
    tmp_path: Path, starter: tuple[int, list[int]]
) -> None:
    end, there = starter
    old = list[Successor]()
    new = wait_at(
        tmp_path / "update.sock", lambda: old.append(Successor(tmp_path / "update.sock", document(0), ())), end
    )
    assert new.receive_early() == (document(0), [])
    gone(there)
    with pytest.raises(InvalidHandover, match="started this process was gone"):
        new.receive_state()
    new.close()
    old[0].close()


def test_a_process_that_gives_up_late_leaves_the_socket_of_the_next_one(
    tmp_path: Path, starter: tuple[int, list[int]]
) -> None:
    end, there = starter
    path, next_one = tmp_path / "update.sock", list[socket.socket]()

    def superseded() -> None:
        next_one.append(listen(path))
        gone(there)

    with pytest.raises(InvalidHandover):
        wait_at(path, superseded, end)
    connect(path, 1).close()
    next_one[0].close()
