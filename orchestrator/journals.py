"""What the journals of an attempt's two hosts say, asked where no agent drives it or remembers it any more."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from orchestrator.agents import Agents
from orchestrator.attempt import Attempt, Notice, merged
from orchestrator.verdict import verdict
from vm_migration.api.v1.destination_pb2 import DiscardRequest, IncomingReport
from vm_migration.errors import MigrationError

_Answer = TypeVar("_Answer")
PROOFS: Final = frozenset({"ABORTED", "LOST"})
"""The states of a source on which a destination discards."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that is over, and the source's proof of it where a destination may wait for one."""

    attempt: Attempt
    proof: DiscardRequest | None
    owned_epoch: int = 0
    """The last one at which the source owned the machine, 0 where it was not heard."""


async def end_in_journals(agents: Agents, attempt: Attempt, error: MigrationError) -> Ended | None:
    """Return how an attempt ended, or None where the journals do not say; `error` is why its source was not heard."""
    outgoing, incoming = await asyncio.gather(
        _heard(agents.describe_outgoing(attempt.source, attempt.key())), _of_destination(agents, attempt)
    )
    found = verdict(attempt, outgoing, incoming)
    if found is None:
        return None
    warnings, proof = found.warnings, None
    if outgoing is None:
        warnings = (*warnings, Notice("source-silent", f"The source has not been heard since: {error.message}"))
    elif outgoing.state in PROOFS:
        proof = DiscardRequest(key=attempt.key(), proof_state=outgoing.state, proof_record=outgoing.record)
    ended = attempt.to(found.phase, found.outcome)
    ended = replace(ended, error=found.error, warnings=merged(attempt.warnings, warnings))
    return Ended(ended, proof, 0 if outgoing is None else outgoing.owned_epoch)


async def _of_destination(agents: Agents, attempt: Attempt) -> IncomingReport | None:
    """Return what the destination's journal says; that of an update is its source's."""
    return None if attempt.asked.update else await _heard(agents.describe_incoming(attempt.destination, attempt.key()))


async def _heard(asking: Awaitable[_Answer]) -> _Answer | None:
    try:
        return await asking
    except MigrationError:
        return None
