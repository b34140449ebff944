"""The whole site at one moment: its hosts, what is in flight, what waits, what has just ended. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from orchestrator.attempt import Attempt, Phase
from orchestrator.documents.site import SiteAttemptDocument, SiteDocument, SiteHostDocument
from orchestrator.evacuation.document import WHAT, counted, evacuation_line
from orchestrator.evacuation.view import EvacuationView
from orchestrator.host_standing import HostStanding
from orchestrator.limits import limits_of
from orchestrator.result import notice_documents, percent_of, timestamp

SCHEMA: Final = "viaduct.site.v1"


@dataclass(frozen=True, slots=True)
class SiteView:
    """What is known; `unheard` says why nothing newer is known of attempts. `at` is in seconds since 1970."""

    at: float
    hosts: tuple[HostStanding, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    """The open ones."""
    ended: tuple[Attempt, ...] = ()
    """Those that were open in the view before."""
    unheard: str = ""
    evacuations: tuple[EvacuationView, ...] = ()
    """The open ones, and after them those that were open in the view before."""
    maintenance: frozenset[str] = frozenset()
    """The hosts that nobody chooses."""

    @property
    def waiting(self) -> tuple[Attempt, ...]:
        """What waits for its turn, what goes first in front."""
        queued = [one for one in self.attempts if one.phase == Phase.QUEUED]
        return tuple(sorted(queued, key=lambda one: (-one.priority, one.created_at, one.attempt)))

    @property
    def in_flight(self) -> tuple[Attempt, ...]:
        """What has had its turn, the oldest in front."""
        begun = [one for one in self.attempts if one.phase != Phase.QUEUED]
        return tuple(sorted(begun, key=lambda one: (one.created_at, one.attempt)))


def news(before: SiteView | None, now: SiteView) -> Iterator[str]:
    """Yield, as lines, what changed about the hosts, the evacuations, and about who tells of attempts."""
    known = {} if before is None else {one.host: one for one in before.hosts}
    for host in now.hosts:
        was = known.get(host.host)
        if was is None or was.obstacles != host.obstacles:
            yield host_words(host)
    said = "" if before is None else before.unheard
    if now.unheard != said:
        yield now.unheard or "attempts are told"
    told = frozenset[str]() if before is None else before.maintenance
    yield from (f"{host} is in maintenance" for host in sorted(now.maintenance - told))
    yield from (f"{host} is in maintenance no more" for host in sorted(told - now.maintenance))
    words = set() if before is None else {evacuation_words(one) for one in before.evacuations}
    yield from (line for line in map(evacuation_words, now.evacuations) if line not in words)


def host_words(host: HostStanding) -> str:
    """Return how a host stands: what speaks against it, or how many machines it has and what it does."""
    if host.obstacles:
        return "; ".join(one.message for one in host.obstacles)
    machines = "an unknown number of" if host.machines is None else str(host.machines)
    return f"{host.host} answers, {machines} machine{'' if host.machines == 1 else 's'}"


def evacuation_words(view: EvacuationView) -> str:
    """Return how an evacuation stands, in a line."""
    outcome = f" {view.outcome};" if view.outcome is not None else ""
    return f"{WHAT[view.kind]} of {view.host}:{outcome} {counted(view)}"


def site_document(view: SiteView) -> SiteDocument:
    """Return `viaduct.site.v1`."""
    return SiteDocument(
        schema_name=SCHEMA,
        at=timestamp(view.at),
        hosts=tuple(_host(one, maintenance=one.host in view.maintenance) for one in view.hosts),
        in_flight=tuple(_attempt(one) for one in view.in_flight),
        waiting=tuple(_attempt(one) for one in view.waiting),
        ended=tuple(_attempt(one) for one in view.ended),
        evacuations=tuple(evacuation_line(one) for one in view.evacuations),
        unheard=view.unheard or None,
    )


def _host(one: HostStanding, *, maintenance: bool) -> SiteHostDocument:
    return SiteHostDocument(
        host=one.host,
        obstacles=notice_documents(one.obstacles),
        maintenance=maintenance,
        version=one.version,
        machines=one.machines,
        memory_free_bytes=one.memory_free,
        memory_budget_bytes=one.memory_budget,
        attempts_out=one.attempts_out,
        attempts_in=one.attempts_in,
    )


def _attempt(one: Attempt) -> SiteAttemptDocument:
    report = one.report
    last = report.rounds[-1] if report is not None and report.rounds else None
    return SiteAttemptDocument(
        attempt=one.attempt,
        machine=one.machine,
        name=one.name,
        source=one.source,
        destination=one.destination,
        phase=one.phase.value,
        outcome=one.outcome.value if one.outcome else None,
        percent=percent_of(one),
        remaining_bytes=None if report is None else report.remaining_bytes,
        wire_bytes_per_s=None if last is None else last.wire_bytes_per_s,
        dirty_bytes_per_s=None if last is None else last.dirty_bytes_per_s,
        expected_downtime_ms=(report.expected_downtime_ms or None) if report is not None else None,
        downtime_limit_ms=limits_of(one).downtime_ms,
        reason=one.reason,
        created=timestamp(one.created_at),
        updated=timestamp(one.updated_at),
    )
