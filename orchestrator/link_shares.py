"""Keeps what runs within the bandwidth of hosts' migration networks: told at an attempt's begin, and tuned after that.

An attempt begins with its share, and those that share a link with it are tuned down at the same time; when one ends the
others are tuned up. A source that cannot be told keeps what it has, and is told again with the next change, or look.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from orchestrator.agents import Agents
from orchestrator.attempt import PAST_RETURN, Attempt
from orchestrator.bandwidth import UNBOUNDED, Flow, shares
from orchestrator.limits import limits_of
from orchestrator.policy import MigrationPolicy
from vm_migration.api.v1 import source_pb2
from vm_migration.errors import MigrationError
from vm_migration.telemetry import logs

_log: Final = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Tuning:
    """A running attempt, and the bandwidth that it is to have from now on."""

    attempt: Attempt
    bytes_per_s: int


class LinkShares:
    """The shares of what one process drives."""

    def __init__(self, agents: Agents, budgets: Mapping[str, int]) -> None:
        """Share these budgets, in bytes a second; without any, nothing is bounded here."""
        self._agents = agents
        self._budgets = budgets
        self._running: dict[str, Flow] = {}
        self._most: dict[str, int] = {}
        self._told: dict[str, int] = {}

    def terms(self, attempt: Attempt) -> MigrationPolicy:
        """Return the policy with which an attempt begins now."""
        bytes_per_s = self.bounded(attempt, attempt.policy.max_bandwidth_bytes_per_s)
        self._told[attempt.attempt] = bytes_per_s
        return msgspec.structs.replace(attempt.policy, max_bandwidth_bytes_per_s=bytes_per_s)

    def bounded(self, attempt: Attempt, most: int) -> int:
        """Return what an attempt gets that is to have so much at most, and remember that."""
        if not self._budgets:
            return most
        self._most[attempt.attempt] = most
        flow = self._flow(attempt)
        share = shares([*(one for one in self._running.values() if one.attempt != flow.attempt), flow], self._budgets)
        return share[attempt.attempt]

    def due(self, running: Iterable[Attempt]) -> list[Tuning]:
        """Note what runs, and return what is to be tuned."""
        if not self._budgets:
            return []
        active = {one.attempt: one for one in running}
        self._most = {name: most for name, most in self._most.items() if name in active}
        self._told = {name: told for name, told in self._told.items() if name in active}
        self._running = {name: self._flow(one) for name, one in active.items()}
        given = shares(self._running.values(), self._budgets)
        return [
            Tuning(one, given[name])
            for name, one in active.items()
            if one.epoch and not one.ended and one.phase not in PAST_RETURN and given[name] not in self._has(one)
        ]

    async def tell(self, tuning: Tuning) -> None:
        """Tune an attempt at its source; where that fails, it is due again."""
        attempt = tuning.attempt
        self._told[attempt.attempt] = tuning.bytes_per_s
        request = source_pb2.TuneRequest(key=attempt.key(), max_bandwidth_bytes_per_s=tuning.bytes_per_s)
        try:
            await self._agents.tune(attempt.source, request)
        except MigrationError as error:
            self._told.pop(attempt.attempt, None)
            _log.warning("bandwidth was not tuned", attempt=attempt.attempt, code=error.code, reason=error.message)

    def _flow(self, attempt: Attempt) -> Flow:
        asked = attempt.policy.max_bandwidth_bytes_per_s
        most = self._most.get(attempt.attempt, asked)
        return Flow(attempt.attempt, attempt.source, attempt.destination, most)

    def _has(self, attempt: Attempt) -> tuple[int, ...]:
        """Return what an attempt has already; UNBOUNDED cannot be told to one that runs, so it is never due."""
        told = self._told.get(attempt.attempt)
        return (UNBOUNDED, limits_of(attempt).bandwidth_bytes_per_s if told is None else told)
