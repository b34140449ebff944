"""The whole site at one moment: its hosts, what is in flight, what waits, what has just ended. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from orchestrator.attempt import Attempt, Phase
from orchestrator.documents.site import SiteAttemptDocument, SiteDocument, SiteHostDocument
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
    """Yield, as lines, what changed about the hosts and about who tells of attempts."""
    known = {} if before is None else {one.host: one for one in before.hosts}
    for host in now.hosts:
        was = known.get(host.host)
        if was is None or was.obstacles != host.obstacles:
            yield host_words(host)
    said = "" if before is None else before.unheard
    if now.unheard != said:
        yield now.unheard or "attempts are told again"


def host_words(host: HostStanding) -> str:
    """Return how a host stands: what speaks against it, or how many machines it has and what it does."""
    if host.obstacles:
        return "; ".join(one.message for one in host.obstacles)
    machines = "an unknown number of" if host.machines is None else str(host.machines)
    return f"{host.host} answers, {machines} machine{'' if host.machines == 1 else 's'}"


def site_document(view: SiteView) -> SiteDocument:
    """Return `viaduct.site.v1`."""
    return SiteDocument(
        schema_name=SCHEMA,
        at=timestamp(view.at),
        hosts=tuple(_host(one) for one in view.hosts),
        in_flight=tuple(_attempt(one) for one in view.in_flight),
        waiting=tuple(_attempt(one) for one in view.waiting),
        ended=tuple(_attempt(one) for one in view.ended),
        unheard=view.unheard or None,
    )


def _host(one: HostStanding) -> SiteHostDocument:
    return SiteHostDocument(
        host=one.host,
        obstacles=notice_documents(one.obstacles),
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
