"""Can this machine move there: both sides are asked, and every blocker and warning is told at once.

Nothing here has a side effect, but that a machine whose writes are measured logs them meanwhile. An agent that does not
answer is a blocker of its own, `unreachable`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from orchestrator.agents import Agents
from orchestrator.attempt import Attempt, Notice, merged, notices
from orchestrator.documents.listings import CandidateDocument, PreflightDocument
from orchestrator.policy import MigrationPolicy, policy_to, require_transport
from orchestrator.result import expected_document, has_range, notice_documents
from vm_migration.api.v1 import destination_pb2, source_pb2, types_pb2
from vm_migration.errors import InvalidInput, MigrationError, Refused, Unreachable
from vm_migration.transfer.forecast import PREPARE_SPREAD

ANY: Final = "any"
SAME_HOST: Final = "same-host"
UNREACHABLE: Final = "unreachable"
_AGAIN_SECONDS: Final = 0.6
"""After which a channel whose agent is back has found it."""
_Answer = TypeVar("_Answer")


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

    @property
    def passes(self) -> bool:
        """Whether nothing stands against it."""
        return not self.blockers


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found for one machine."""

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
    but: Collection[str] = (),
) -> Preflight:
    """Ask the machine's host, and one destination or (`any`) all others, `but` those that nobody may choose.

    For `measure_ms` what the machine dirties is measured first, once for all of them; 0 takes its guest's own figure.
    With `by_host` memory travels to each as the configuration says of it.

    Raises:
        InvalidInput: The destination is not configured, or `any` has nothing to choose from.
        Refused: No host is left that `any` may choose: `no-host-to-choose`.
    """
    if destination != ANY:
        agents.require(destination)
        hosts = [destination]
    else:
        hosts = sorted(host for host in agents.hosts if host != machine.host)
        if not hosts:
            raise InvalidInput("unknown-host", "No other host is configured", "Add a [host.NAME] to viaduct.toml")
        hosts = [host for host in hosts if host not in but]
        if not hosts:
            text = "No host may be chosen: all others are in maintenance, or not among those that were named"
            raise Refused("no-host-to-choose", text, "Name one, or: viaduct host maintenance HOST off")
    policies = {host: policy_to(policy, agents.hosts[host].transport, by_host=by_host) for host in hosts}
    asked = await asyncio.gather(*(ask(agents, machine, host, policies[host], measure_ms=measure_ms) for host in hosts))
    return Preflight(machine, tuple(asked))


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
        outgoing = await _asked(lambda: agents.check_outgoing(machine.host, request))
    except Unreachable as error:
        return Candidate(host, (_unreachable(error),), (), None, shared_clock=False)
    blockers = notices(outgoing.blockers)
    warnings = merged(notices(outgoing.warnings), unheard(machine.host, policy, outgoing, measure_ms))
    if host == machine.host and SAME_HOST not in {one.code for one in blockers}:
        blockers = (Notice(SAME_HOST, f"{machine.name} is on {host} already"), *blockers)
    prepare_ms, shared = 0.0, False
    if host != machine.host:
        question = destination_pb2.CheckIncomingRequest(requirements=outgoing.requirements, source=machine.host)
        try:
            incoming = await _asked(lambda: agents.check_incoming(host, question))
            shared = await _share_clock(agents, machine.host, host)
            lacking = await _lacking_transport(agents, host, policy)
        except Unreachable as error:
            return Candidate(host, (*blockers, _unreachable(error)), warnings, None, shared_clock=False)
        blockers = merged(blockers, (*notices(incoming.blockers), *lacking))
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


async def _asked(question: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Ask once more where there was no connection: it may have ended with an agent that was restarted."""
    try:
        return await question()
    except Unreachable as error:
        if error.code != UNREACHABLE:
            raise
    await asyncio.sleep(_AGAIN_SECONDS)
    return await question()


def preflight_document(found: Preflight) -> PreflightDocument:
    """Return `viaduct.preflight.v1`."""
    chosen = found.chosen
    return PreflightDocument(
        schema_name="viaduct.preflight.v1",
        machine=found.machine.machine,
        name=found.machine.name,
        source=found.machine.host,
        destination=chosen.host if chosen else None,
        passes=chosen is not None,
        candidates=tuple(_candidate(one) for one in found.candidates),
    )


async def _lacking_transport(agents: Agents, host: str, policy: MigrationPolicy) -> tuple[Notice, ...]:
    if policy.transport == "grpc":
        return ()
    facts = await agents.describe_host(host, "dest")
    try:
        require_transport(policy, facts.features, host)
    except Refused as error:
        return (Notice(error.code, error.message),)
    return ()


async def _share_clock(agents: Agents, source: str, destination: str) -> bool:
    one = await agents.describe_host(source, "source")
    other = await agents.describe_host(destination, "dest")
    return bool(one.boot_id) and one.boot_id == other.boot_id


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


def _candidate(one: Candidate) -> CandidateDocument:
    return CandidateDocument(
        host=one.host,
        passes=one.passes,
        blockers=notice_documents(one.blockers),
        warnings=notice_documents(one.warnings),
        expected=expected_document(one.expected, shared_clock=one.shared_clock) if one.expected else None,
        profiles=tuple(expected_document(each, shared_clock=one.shared_clock) for each in one.profiles),
    )
