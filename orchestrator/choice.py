"""Which host a machine goes to. Pure: the same answers give the same choice, in whatever order the hosts come.

::

    excluded, silent, or not who it should be              out, with the reason
    does not fit, or lacks what the machine has            out, with every reason
    does not say all of that, as a host of 0.1.0           after every host that does
    the rest                                               by room, most first

    room = share of its budget that is free after the arrival  x  share of its link that the arrival would get

The link's share is what each attempt has when one more comes to those that are open there, either way. Where every host
that is left says how fast its link is, that counts too, against the fastest. Equal room goes to fewer machines, then to
the first name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, Literal

from orchestrator.attempt import Notice
from orchestrator.host_standing import HostStanding
from orchestrator.policy import Transport
from orchestrator.suitability import Needs, obstacles, unknown

EXCLUDED: Final = "host-excluded"
Verdict = Literal["chosen", "passes", "blocked", "excluded"]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known beside what the hosts say of themselves."""

    excluded: Mapping[str, str] = field(default_factory=dict)
    """Hosts that are left out, and why, as for maintenance."""
    told: Mapping[str, tuple[Notice, ...]] = field(default_factory=dict)
    """Blockers that a host's agents told of this machine; they count beside what is seen here."""
    transports: Mapping[str, Transport] = field(default_factory=dict)
    """How memory would travel to each; gRPC where nothing is said."""
    taking: Mapping[str, int] = field(default_factory=dict)
    """How many attempts to each are open in the store; its agent knows those of them that have begun."""
    sending: Mapping[str, int] | None = None
    """How many attempts leave each, of those in the store; None where the source agents have told that themselves."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a host was ranked by: bytes, bytes a second, and shares between 0 and 1; None for what is not known."""

    memory_budget_bytes: int | None
    memory_free_bytes: int | None
    free_share_after: float | None
    machines: int | None
    attempts_out: int | None
    attempts_in: int | None
    link_bytes_per_s: int | None
    link_share: float | None
    room: float | None


@dataclass(frozen=True, slots=True)
class Considered:
    """One host, and what was thought of it; `unknown` is what it did not say."""

    host: str
    verdict: Verdict
    obstacles: tuple[Notice, ...]
    unknown: tuple[str, ...]
    figures: Figures

    @property
    def passes(self) -> bool:
        """Whether it could take the machine."""
        return self.verdict in ("chosen", "passes")


@dataclass(frozen=True)
class Choice:
    """All hosts: those that could take the machine, best first, then those that could not, by name."""

    considered: tuple[Considered, ...]

    @cached_property
    def chosen(self) -> str | None:
        """The host to take; None where there is none."""
        return next((one.host for one in self.considered if one.verdict == "chosen"), None)


def choose(needs: Needs, hosts: Iterable[HostStanding], known: Known | None = None) -> Choice:
    """Choose among some hosts, none of which is the machine's own."""
    beside = Known() if known is None else known
    against = [(host, _against(needs, host, beside)) for host in (_awaiting(each, beside) for each in hosts)]
    rates = [_rate(host) for host, found in against if not found]
    fastest = max(rates) if rates and all(rates) else 0
    considered = (_considered(needs, host, found, beside, fastest) for host, found in against)
    ranked = sorted(considered, key=_rank)
    if ranked and ranked[0].passes:
        ranked[0] = replace(ranked[0], verdict="chosen")
    return Choice(tuple(ranked))


def after_arrival(host: HostStanding, ram_bytes: int) -> HostStanding:
    """Return a host with one more machine on its way to it, for whoever places several before the first has begun."""
    return replace(
        host,
        memory_free=None if host.memory_free is None else max(0, host.memory_free - ram_bytes),
        machines=None if host.machines is None else host.machines + 1,
        attempts_in=None if host.attempts_in is None else host.attempts_in + 1,
    )


def _awaiting(host: HostStanding, beside: Known) -> HostStanding:
    if beside.sending is not None:
        host = replace(host, attempts_out=beside.sending.get(host.host, 0))
    awaiting = beside.taking.get(host.host, 0)
    if host.attempts_in is None or host.attempts_in >= awaiting:
        return host
    return replace(host, attempts_in=awaiting)


def _against(needs: Needs, host: HostStanding, beside: Known) -> tuple[Notice, ...]:
    """Return what stands against a host, what its agents told of it first; a code that they told is not repeated."""
    told = beside.told.get(host.host, ())
    codes = {one.code for one in told}
    seen = obstacles(needs, host, beside.transports.get(host.host, "grpc"))
    reason = beside.excluded.get(host.host)
    left_out = () if reason is None else (Notice(EXCLUDED, reason),)
    return (*left_out, *told, *(one for one in seen if one.code not in codes))


def _considered(needs: Needs, host: HostStanding, found: tuple[Notice, ...], beside: Known, fastest: int) -> Considered:
    verdict: Verdict = "blocked" if found else "passes"
    if host.host in beside.excluded:
        verdict = "excluded"
    return Considered(host.host, verdict, found, unknown(host), _figures(needs, host, 0 if found else fastest))


def _figures(needs: Needs, host: HostStanding, fastest: int) -> Figures:
    free, link = _free_share(needs, host), _link_share(host, fastest)
    return Figures(
        memory_budget_bytes=host.memory_budget,
        memory_free_bytes=host.memory_free,
        free_share_after=free,
        machines=host.machines,
        attempts_out=host.attempts_out,
        attempts_in=host.attempts_in,
        link_bytes_per_s=_rate(host) or None,
        link_share=link,
        room=None if free is None or link is None else free * link,
    )


def _free_share(needs: Needs, host: HostStanding) -> float | None:
    if host.memory_free is None or not host.memory_budget or needs.ram_bytes > host.memory_free:
        return None
    return min(1.0, (host.memory_free - needs.ram_bytes) / host.memory_budget)


def _link_share(host: HostStanding, fastest: int) -> float | None:
    if host.attempts_out is None or host.attempts_in is None:
        return None
    share = 1 / (1 + host.attempts_out + host.attempts_in)
    return share * _rate(host) / fastest if fastest else share


def _rate(host: HostStanding) -> int:
    return 0 if host.offer is None else host.offer.link_bytes_per_s


def _rank(one: Considered) -> tuple[bool, bool, float, int, str]:
    """Return what hosts are sorted by; of one that does not say all, what it says of its memory counts."""
    figures = one.figures
    room = figures.room if figures.room is not None else figures.free_share_after
    if not one.passes:
        return True, False, 0.0, 0, one.host
    return False, bool(one.unknown), -(room or 0.0), figures.machines or 0, one.host
