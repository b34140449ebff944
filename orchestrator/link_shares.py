"""Keeps what runs within the bandwidth of hosts' migration networks: told at an attempt's begin, and tuned after that.

An attempt begins with its share, and those that share a link with it are tuned down at the same time; when one ends the
others are tuned up. A source that cannot be told keeps what it has, and is told again with the next change, or look.
It is told one thing at a time: of two calls that are on their way the later one might arrive first.
What somebody tuned an attempt to stands in its row, and is what it wants from then on, whoever drives it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from orchestrator.agents import Agents
from orchestrator.attempt import PAST_RETURN, Attempt
from orchestrator.bandwidth import UNBOUNDED, Flow, shares
from orchestrator.limits import limits_of, rate_told, rate_wanted
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

    def __init__(self, agents: Agents, budgets: Mapping[str, int], look: Callable[[], None]) -> None:
        """Share these budgets, in bytes a second; without any, nothing is bounded here.

        Call `look` when a source has been told, so that `due` is asked what changed meanwhile.
        """
        self._agents = agents
        self._budgets = budgets
        self._look = look
        self._running: dict[str, Flow] = {}
        self._given: dict[str, int] = {}
        self._tuned: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._telling: set[str] = set()

    def terms(self, attempt: Attempt) -> MigrationPolicy:
        """Return the policy with which an attempt begins now."""
        bytes_per_s = self._share(self._flow(attempt))
        self._told[attempt.attempt] = bytes_per_s
        return msgspec.structs.replace(attempt.policy, max_bandwidth_bytes_per_s=bytes_per_s)

    def within(self, attempt: Attempt, most: int) -> int:
        """Return the rate to tell a running attempt that is to have so much at most; UNLIMITED is for no limit."""
        return rate_told(self._share(replace(self._flow(attempt), most=rate_wanted(most))))

    def tuned(self, attempt: Attempt, most: int) -> None:
        """Note what an attempt was tuned to, until its row says it."""
        self._tuned[attempt.attempt] = rate_wanted(most)

    def _share(self, flow: Flow) -> int:
        """Return what an attempt gets beside what runs."""
        if not self._budgets:
            return flow.most
        share = shares([*(one for one in self._running.values() if one.attempt != flow.attempt), flow], self._budgets)
        return share[flow.attempt]

    def due(self, running: Iterable[Attempt], waits: Callable[[Attempt], bool] = lambda _: False) -> list[Tuning]:
        """Note what runs, and return what is to be told now; one that is prepared and `waits` takes no share yet.

        Each is to be given to `tell`; until that has returned, nothing is due of its attempt.
        """
        known = {one.attempt: one for one in running}
        self._tuned = {
            name: most for name, most in self._tuned.items() if name in known and known[name].asked.bandwidth != most
        }
        if not self._budgets:
            return []
        self._told = {name: told for name, told in self._told.items() if name in known}
        active = {name: one for name, one in known.items() if not waits(one)}
        given = self._shares({name: self._flow(one) for name, one in active.items()})
        due = [
            Tuning(one, given[name])
            for name, one in active.items()
            if name not in self._telling
            and one.epoch
            and not one.ended
            and one.phase not in PAST_RETURN
            and given[name] != self._has(one, given[name])
        ]
        self._telling.update(one.attempt.attempt for one in due)
        return due

    def _shares(self, running: dict[str, Flow]) -> Mapping[str, int]:
        """Note what runs, and return what each gets: as before, where the same runs."""
        if running != self._running:
            self._running, self._given = running, shares(running.values(), self._budgets)
        return self._given

    async def tell(self, tuning: Tuning) -> None:
        """Tune an attempt at its source; where that fails, it is due again."""
        attempt = tuning.attempt
        self._told[attempt.attempt] = tuning.bytes_per_s
        request = source_pb2.TuneRequest(key=attempt.key(), max_bandwidth_bytes_per_s=rate_told(tuning.bytes_per_s))
        try:
            await self._agents.tune(attempt.source, request)
        except MigrationError as error:
            self._told.pop(attempt.attempt, None)
            _log.warning("bandwidth was not tuned", attempt=attempt.attempt, code=error.code, reason=error.message)
        else:
            self._look()
        finally:
            self._telling.discard(attempt.attempt)

    def _flow(self, attempt: Attempt) -> Flow:
        most = self._tuned.get(attempt.attempt, attempt.bandwidth_wanted)
        return Flow(attempt.attempt, attempt.source, attempt.destination, most)

    def _has(self, attempt: Attempt, given: int) -> int:
        """Return what an attempt has, as far as is known; what another process tuned is not undone for nothing."""
        told = self._told.get(attempt.attempt)
        if told is None:
            return given if given == UNBOUNDED else limits_of(attempt).bandwidth_bytes_per_s
        return told
