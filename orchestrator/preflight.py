"""Can this machine move there: both sides are asked, and every blocker and warning is told at once.

Nothing here has a side effect, but that a machine whose writes are measured logs them meanwhile, and that a destination
touches some memory of its own to see how fast that is. An agent that does not answer is a blocker of its own,
`unreachable`.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from orchestrator.agents import Agents, asked_again
from orchestrator.attempt import Attempt, Notice, merged, notices
from orchestrator.choice import Considered, Known, choose
from orchestrator.hearing import standings
from orchestrator.host_standing import UNREACHABLE, somebody_else
from orchestrator.policy import MigrationPolicy, lacking_transport, policy_to
from orchestrator.result import has_range
from orchestrator.suitability import needs_of
from vm_migration.api.v1 import destination_pb2, source_pb2, types_pb2
from vm_migration.daemon.host_facts import TRANSPORT_NOT_OFFERED
from vm_migration.errors import InvalidInput, MigrationError, Refused, Unreachable
from vm_migration.link.subject_names import SUBJECT_UNLISTED
from vm_migration.transfer.forecast import PREPARE_SPREAD

ANY: Final = "any"
SAME_HOST: Final = "same-host"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One destination, asked."""

    host: str
    blockers: tuple[Notice, ...]
    warnings: tuple[Notice, ...]
    expected: types_pb2.Expected | None
    shared_clock: bool
    profiles: tuple[types_pb2.Expected, ...] = ()
    """What it would be under each profile, where the source tells."""
    considered: Considered | None = None
    """What the choice came to think of it, where there was one."""

    @property
    def passes(self) -> bool:
        """Whether nothing stands against it."""
        return not self.blockers


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found for one machine; the destinations in the order in which they would be taken."""

    machine: types_pb2.MachineStatus
    candidates: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate | None:
        """The first destination that passes."""
        return next((one for one in self.candidates if one.passes), None)


async def preflight(
    agents: Agents,
    machine: types_pb2.MachineStatus,
    destination: str,
    policy: MigrationPolicy,
    *,
    measure_ms: int = 0,
    by_host: bool = False,
    excluded: Mapping[str, str] | None = None,
    taking: Mapping[str, int] | None = None,
) -> Preflight:
    """Ask the machine's host, and one destination or (`any`) all others.

    For `measure_ms` what the machine dirties is measured first, once for all of them, and then how fast each
    destination makes memory ready; 0 takes its guest's own figure, and what destinations took of late.
    With `by_host` memory travels to each as the configuration says of it. `any` leaves out, and does not ask about
    the machine, the hosts that are `excluded`, with the reason; `taking` are the open attempts to each in the store.

    Raises:
        InvalidInput: The destination is not configured, or `any` has nothing to choose from.
    """
    if destination != ANY:
        agents.require(destination)
    hosts = other_hosts(agents, machine) if destination == ANY else [destination]
    policies = policies_to(agents, hosts, policy, by_host=by_host)
    left_out = (excluded or {}) if destination == ANY else {}
    wanted = [host for host in hosts if host not in left_out]
    told, asked = await asyncio.gather(
        standings(agents, {machine.host, *hosts}),
        asyncio.gather(*(ask(agents, machine, host, policies[host], measure_ms=measure_ms) for host in wanted)),
    )
    candidates = {host: Candidate(host, (), (), None, shared_clock=False) for host in hosts}
    candidates |= {one.host: one for one in asked}
    choice = choose(
        needs_of(machine, told[machine.host]),
        [told[host] for host in hosts],
        Known(
            excluded=left_out,
            told={host: one.blockers for host, one in candidates.items()},
            transports={host: each.transport for host, each in policies.items()},
            taking=taking or {},
        ),
    )
    ranked = (replace(candidates[one.host], blockers=one.obstacles, considered=one) for one in choice.considered)
    return Preflight(machine, tuple(ranked))


def other_hosts(agents: Agents, machine: types_pb2.MachineStatus) -> list[str]:
    """Return the hosts that a machine is not on.

    Raises:
        InvalidInput: There is none.
    """
    hosts = sorted(host for host in agents.hosts if host != machine.host)
    if not hosts:
        raise InvalidInput("unknown-host", "No other host is configured", "Add a [host.NAME] to viaduct.toml")
    return hosts


def policies_to(
    agents: Agents, hosts: Iterable[str], policy: MigrationPolicy, *, by_host: bool
) -> dict[str, MigrationPolicy]:
    """Return the policy to each host: with `by_host` memory travels as the configuration says of it."""
    return {host: policy_to(policy, agents.hosts[host].transport, by_host=by_host) for host in hosts}


def require_choosable(found: Preflight) -> None:
    """Accept a choice in which a host is left.

    Raises:
        Refused: All of them are excluded.
    """
    excluded = [one.considered for one in found.candidates if one.considered is not None]
    if all(one.verdict == "excluded" for one in excluded):
        reasons = "; ".join(one.obstacles[0].message for one in excluded)
        text = f"No host may be chosen for {found.machine.name} ({reasons})"
        raise Refused("no-host-to-choose", text, "Name one, or: viaduct host maintenance HOST off")


async def ask(
    agents: Agents, machine: types_pb2.MachineStatus, host: str, policy: MigrationPolicy, *, measure_ms: int = 0
) -> Candidate:
    """Ask both sides about one destination.

    Raises:
        MigrationError: An agent failed otherwise than by not answering.
    """
    request = source_pb2.CheckOutgoingRequest(
        machine=machine.machine, destination=host, policy=policy.message(), measure_ms=measure_ms
    )
    try:
        outgoing = await asked_again(lambda: agents.check_outgoing(machine.host, request))
    except Unreachable as error:
        return Candidate(host, (_unreachable(error),), (), None, shared_clock=False)
    blockers = notices(outgoing.blockers)
    warnings = merged(notices(outgoing.warnings), unheard(machine.host, policy, outgoing, measure_ms))
    if host == machine.host and SAME_HOST not in {one.code for one in blockers}:
        blockers = (Notice(SAME_HOST, f"{machine.name} is on {host} already"), *blockers)
    prepare_ms, shared = 0.0, False
    if host != machine.host:
        question = destination_pb2.CheckIncomingRequest(
            requirements=outgoing.requirements, source=machine.host, measure_ms=measure_ms
        )
        try:
            incoming = await asked_again(lambda: agents.check_incoming(host, question))
            here, there = await asyncio.gather(
                agents.describe_host(machine.host, "source"), agents.describe_host(host, "dest")
            )
        except Unreachable as error:
            return Candidate(host, (*blockers, _unreachable(error)), warnings, None, shared_clock=False)
        shared = bool(here.boot_id) and here.boot_id == there.boot_id
        strangers = (somebody_else(machine.host, "source", here.host), somebody_else(host, "dest", there.host))
        known = tuple(one for one in strangers if one is not None)
        told = notices(incoming.blockers)
        blockers = merged(blockers, (*known, *told, *_lacking(policy, outgoing.requirements, there, told)))
        warnings = merged(warnings, notices(incoming.warnings))
        prepare_ms = incoming.expected_prepare_ms
    expected = _with_prepare(outgoing.expected, prepare_ms) if outgoing.HasField("expected") else None
    profiles = tuple(_with_prepare(each, prepare_ms) for each in outgoing.profiles)
    return Candidate(host, blockers, warnings, expected, shared, profiles)


def with_findings(attempt: Attempt, found: Candidate) -> Attempt:
    """Return an attempt with what was found of its destination."""
    return replace(
        attempt,
        blockers=found.blockers,
        warnings=merged(attempt.warnings, found.warnings),
        expected=found.expected,
        shared_clock=found.shared_clock,
    )


def unheard(
    source: str, policy: MigrationPolicy, answer: source_pb2.CheckOutgoingResponse, measure_ms: int
) -> tuple[Notice, ...]:
    """Return what was asked of a source that does not hear of it: one of 0.1.0, which tells no profiles."""
    if answer.profiles or not answer.HasField("expected"):
        return ()
    found, older = [], f"The source agent of {source} is of an older version"
    if policy.profile != "gentle":
        text = f"{older}: it throttles no vCPU, under {policy.profile} as under gentle"
        found.append(Notice("profile-unheard", text))
    if measure_ms:
        found.append(Notice("dirty-rate-assumed", f"{older}: it measures nothing, and takes the guest's own figure"))
    return tuple(found)


def _lacking(
    policy: MigrationPolicy, needed: types_pb2.Requirements, facts: types_pb2.HostFacts, told: tuple[Notice, ...]
) -> tuple[Notice, ...]:
    """Return that a destination offers less than is needed, unless it has `told` so itself, and why."""
    text = lacking_transport(policy.transport, facts.features, facts.host)
    said_why = any(one.code in (TRANSPORT_NOT_OFFERED, SUBJECT_UNLISTED) for one in told)
    if text is None and not said_why and set(needed.features) - set(facts.features):
        text = f"{facts.host} takes no {policy.transport} streams in of machines that send themselves, as {needed.name}"
        text += ": use --transport grpc, or update that host"
    return () if text is None else (Notice(TRANSPORT_NOT_OFFERED, text),)


def _with_prepare(expected: types_pb2.Expected, prepare_ms: float) -> types_pb2.Expected:
    """Put what the destination says of itself in the place of what the source took it to need."""
    if not prepare_ms:
        return expected
    whole, later_ms = types_pb2.Expected(), prepare_ms - expected.prepare_ms
    whole.CopyFrom(expected)
    whole.total_ms += later_ms
    if has_range(expected):
        whole.total_low_ms += later_ms * (1 - PREPARE_SPREAD)
        whole.total_high_ms += later_ms * (1 + PREPARE_SPREAD)
    whole.prepare_ms = prepare_ms
    return whole


def _unreachable(error: MigrationError) -> Notice:
    return Notice(UNREACHABLE, error.message)
