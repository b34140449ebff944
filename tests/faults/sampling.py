"""A machine's processes, looked at every 20 ms by a thread for each host, past all agents; and what the looks prove.

A look proves something of the moment between its question and its answer. A process that says "running" twice at the
same pause ran all the time between the first answer and the second question: a stop has a number of its own. Two
processes of one machine whose proven times overlap ran both: a double run. Nothing is inferred from a late answer.
"""

import contextlib
import select
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from vfio_host.interface.channel import Channel, ChannelError, close_all, connect
from vmm.process import control

EVERY_SECONDS = 0.02
_ANEW_SECONDS = 2.0
"""For an answer where somebody else may listen by now."""
_RATE_SHARE = 0.95


@dataclass(frozen=True)
class Look:
    """One answer of one machine process; times are nanoseconds of this host's monotonic clock."""

    asked_ns: int
    answered_ns: int
    host: str
    instance: str
    run_state: str
    pause: int
    errors: int
    jobs: int
    dirty_bytes_per_s: float


@dataclass(frozen=True)
class Span:
    """A time in which a process is proven to have run."""

    host: str
    instance: str
    first_ns: int
    last_ns: int


def proven_runs(looks: Iterable[Look]) -> list[Span]:
    """Return the times between two looks in which a process ran throughout."""
    of: dict[tuple[str, str], list[Look]] = defaultdict(list)
    for look in looks:
        of[look.host, look.instance].append(look)
    spans = []
    for (host, instance), mine in of.items():
        for one, other in pairwise(sorted(mine, key=lambda look: look.asked_ns)):
            ran = one.run_state == other.run_state == "running" and one.pause == other.pause
            if ran and one.answered_ns < other.asked_ns:
                spans.append(Span(host, instance, one.answered_ns, other.asked_ns))
    return spans


def double_runs(looks: Iterable[Look]) -> list[str]:
    """Return each pair of processes that ran at once, in words, with the first such moment."""
    first: dict[tuple[str, str], str] = {}
    for one, other in combinations(proven_runs(looks), 2):
        names = sorted((f"{one.host} ({one.instance})", f"{other.host} ({other.instance})"))
        begin, end = max(one.first_ns, other.first_ns), min(one.last_ns, other.last_ns)
        if one.instance != other.instance and begin < end:
            first.setdefault((names[0], names[1]), f"{names[0]} and {names[1]} both ran at {begin} ns")
    return list(first.values())


def undone(looks: Iterable[Look]) -> list[str]:
    """Return each look that began when another one had seen the running guest to have done more, in words.

    Of a machine that stays on its host: what one process has done, the next one goes on from.
    """
    running = [look for look in looks if look.run_state == "running"]
    answered = sorted(running, key=lambda look: look.answered_ns)
    found, most, at = [], 0, 0
    for look in sorted(running, key=lambda look: look.asked_ns):
        while answered[at].answered_ns < look.asked_ns:
            most = max(most, answered[at].jobs)
            at += 1
        if look.jobs < most:
            found.append(f"{look.jobs} jobs in {look.instance} at {look.asked_ns} ns, after {most}")
    return found[:1]


def seconds_to_full_rate(looks: Sequence[Look], fault_ns: int) -> float | None:
    """Return how long after a fault the first whole second begins in which the guest writes at 95 % of its rate before.

    A guest says what it wrote in its last whole second; a value that is new was measured over the second before it.
    None where the looks hold no such second.
    """
    before = [look.dirty_bytes_per_s for look in looks if look.answered_ns < fault_ns]
    if not before or before[-1] <= 0:
        return None
    for one, other in pairwise([look for look in looks if look.answered_ns >= fault_ns]):
        begun = other.answered_ns - 1_000_000_000
        new = other.dirty_bytes_per_s != one.dirty_bytes_per_s
        if new and begun >= fault_ns and other.dirty_bytes_per_s >= _RATE_SHARE * before[-1]:
            return (begun - fault_ns) / 1e9
    return None


class Sampler:
    """Looks at one machine on some hosts while the context is entered; `looks` grows meanwhile."""

    def __init__(
        self, sockets: dict[str, Path], every_s: float = EVERY_SECONDS, *, anew: frozenset[str] = frozenset()
    ) -> None:
        """Take each host's path of the machine's control socket, whether or not it is there yet.

        Those of `anew` are connected to for each look: whoever listens there by then is seen, also while a process that
        listened before is frozen, and lives.
        """
        self.looks: list[Look] = []
        self._every_s = every_s
        self._anew = anew
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(host, path), name=f"looks at {host}")
            for host, path in sockets.items()
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def last(self, host: str) -> Look | None:
        """Return the last look at a host."""
        return next((look for look in reversed(self.looks) if look.host == host), None)

    def _watch(self, host: str, path: Path) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(ChannelError), _connected(path) as channel:
                for look in _looks(channel, host, self._patience_for(host)):
                    self.looks.append(look)
                    if self._stop.wait(self._every_s) or host in self._anew:
                        break
            self._stop.wait(EVERY_SECONDS)

    def _patience_for(self, host: str) -> Callable[[], bool]:
        """Return what tells whether an answer is waited for no longer: for ever, where nobody else may listen there."""
        if host not in self._anew:
            return self._stop.is_set
        until = time.monotonic() + _ANEW_SECONDS
        return lambda: self._stop.is_set() or time.monotonic() > until


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[Channel]:
    channel = connect(path, 1.0)
    try:
        yield channel
    finally:
        channel.close()


def _looks(channel: Channel, host: str, stopped: Callable[[], bool]) -> Iterator[Look]:
    """Ask for ever; a process that is frozen is waited for on the same connection."""
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    while True:
        asked = time.monotonic_ns()
        channel.send(control.encode(control.Describe()))
        while not poll.poll(50):
            if stopped():
                return
        body, descriptors = channel.receive()
        close_all(descriptors)
        answered = time.monotonic_ns()
        with contextlib.suppress(msgspec.DecodeError):
            reply = control.reply_decoder.decode(body)
            if isinstance(reply, control.Description):
                yield Look(
                    asked_ns=asked,
                    answered_ns=answered,
                    host=host,
                    instance=reply.instance,
                    run_state=reply.run_state,
                    pause=reply.pause,
                    errors=reply.guest.errors,
                    jobs=reply.guest.jobs_done,
                    dirty_bytes_per_s=reply.guest.dirty_bytes_per_s,
                )
