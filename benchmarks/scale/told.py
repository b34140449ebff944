"""What a subscriber was told, beside what happened at the sources: how late each transition's state message was. Pure.

A state is told as it stands when it is told, so that one message may tell of several transitions: each is told by the
first that names its phase or a later one.
"""

import bisect
import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Protocol

import msgspec

from benchmarks.scale.fleet import OPENED, Happened
from orchestrator.attempt import ENDS, Outcome, Phase, may_follow

_AT_SOURCE: Final = frozenset(Phase) - {Phase.QUEUED, Phase.PREFLIGHT, Phase.BEGINNING, Phase.PREPARING, Phase.REFUSED}
"""Phases that a source goes to by itself; the others are the orchestrator's own."""


class Document(msgspec.Struct, frozen=True):
    """Of a state or an event what is read here."""

    attempt: str
    phase: str
    source: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as mosquitto_sub printed it; `at` is when it came, in seconds since 1970."""

    at: float
    retained: bool
    topic: str
    document: Document


FORMAT: Final = "%U %r %t %p"
"""For mosquitto_sub: when it came, whether it is an old one that the broker kept, topic, payload."""


def message_of(line: str) -> Message | None:
    """Read a line of mosquitto_sub; None where it is not of a migration's states and events."""
    at, retained, topic, payload = line.split(" ", 3)
    if topic.rpartition("/")[2] not in ("state", "event") or not payload.strip():
        return None
    return Message(float(at), retained == "1", topic, msgspec.json.decode(payload, type=Document))


def happened_of(line: str) -> Happened:
    """Read a line of the simulated hosts."""
    at, attempt, what = line.rstrip("\n").split(" ", 2)
    return Happened(attempt, what, float(at))


def transitions(happened: Iterable[Happened], told: Iterable[Message]) -> list[Happened]:
    """Return every transition: of the sources as they say, and the orchestrator's own as its events are dated."""
    sources = [one for one in happened if one.what in _AT_SOURCE]
    events = (one.document for one in told if one.topic.endswith("/event") and not one.retained)
    own = [Happened(one.attempt, one.phase, _seconds(one.at)) for one in events if one.phase not in _AT_SOURCE]
    return sorted([*sources, *own], key=lambda one: one.at)


def delays(went: Iterable[Happened], told: Iterable[Message]) -> list[float | None]:
    """Return in how many seconds each transition was told as a state; None where it never was."""
    states = _states(told)
    return [
        next((max(0.0, one.at - each.at) for one in states.get(each.attempt, ()) if _tells(one, each)), None)
        for each in went
    ]


def _tells(message: Message, transition: Happened) -> bool:
    phase, wanted = Phase(message.document.phase), Phase(transition.what)
    return message.at >= transition.at - _CLOCK and may_follow(wanted, phase)


_CLOCK: Final = 0.002
"""Times in messages are whole milliseconds."""


def _states(told: Iterable[Message]) -> Mapping[str, Sequence[Message]]:
    found = defaultdict(list)
    for one in told:
        if one.topic.endswith("/state") and not one.retained:
            found[one.document.attempt].append(one)
    return found


def in_flight(happened: Iterable[Happened]) -> "InFlight":
    """Return how many attempts were open at their sources, over time."""
    changes = sorted((one.at, _change(one)) for one in happened if _change(one))
    return InFlight([at for at, _ in changes], list(accumulate(change for _, change in changes)))


@dataclass(frozen=True, slots=True)
class InFlight:
    """How many there were from each moment on."""

    times: Sequence[float]
    counts: Sequence[int]

    def at(self, moment: float) -> int:
        """Return how many there were at a moment."""
        index = bisect.bisect_right(self.times, moment) - 1
        return self.counts[index] if index >= 0 else 0


def open_at(happened: Iterable[Happened], moment: float) -> frozenset[str]:
    """Return the attempts that were open at their sources at a moment."""
    there: set[str] = set()
    for one in happened:
        if one.at <= moment and _change(one) > 0:
            there.add(one.attempt)
        elif one.at <= moment and _change(one) < 0:
            there.discard(one.attempt)
    return frozenset(there)


def taken_up(
    attempts: Iterable[str], happened: Iterable[Happened], told: Iterable[Message], since: float
) -> float | None:
    """Return when the last of some attempts was taken up anew, after a moment; None where one of them was not yet.

    It is when its source has heard of the driver's next term, and a state message of it has come.
    """
    heard = {one.attempt: one.at for one in happened if one.what.startswith("term ") and one.at > since}
    states = _states(one for one in told if one.at > since)
    last = since
    for attempt in attempts:
        if attempt not in heard or attempt not in states:
            return None
        last = max(last, heard[attempt], states[attempt][0].at)
    return last


class Moved(Protocol):
    """What an evacuation says of a machine: orchestrator.evacuation.view.MoveView."""

    @property
    def attempts(self) -> Sequence[str]:
        """Its attempts, oldest first."""

    @property
    def outcome(self) -> Outcome | None:
        """How they ended."""


def misplaced(move: Moved, arrived: Mapping[str, int]) -> bool:
    """Say whether a machine is elsewhere than its evacuation says, or moved twice.

    `arrived` is how often each attempt completed at its source.
    """
    moves = sum(arrived.get(one, 0) for one in move.attempts)
    return moves != (move.outcome is Outcome.COMPLETED)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that so large a share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def _change(one: Happened) -> int:
    return 1 if one.what == OPENED else -1 if one.what in ENDS else 0


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()
