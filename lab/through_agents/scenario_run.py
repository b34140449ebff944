"""One scenario on the lab's site: create, work, act at moments, migrate, look, destroy."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lab.observation import Observation
from lab.scenario import Scenario
from lab.through_agents.agents_of_site import HostAgent
from lab.through_agents.console import Console
from lab.through_agents.handoffs import Handoffs
from lab.through_agents.logs import Logs
from lab.through_agents.migration import MigrationResult, Order, migrate, preflight
from vm_migration.api.v1.source_pb2 import AttemptReport
from vm_migration.api.v1.types_pb2 import AttemptKey, MachineStatus
from vm_migration.errors import AttemptFailed, InternalError, InvalidInput, MigrationError

HOSTS: Final = ("host-a", "host-b")
_SOURCE, _DESTINATION = HOSTS
PLAYS: Final = 5
"""How often a scenario is played at most that is to lose pages, until one has lost some."""
_START: Final = "start"
"""The moment before an attempt."""
_LOOK_SECONDS: Final = 0.02
_WORK_SECONDS: Final = 20.0
_AFTERWARDS_SECONDS: Final = 0.3
_DIFFERENT: Final = "pages-mismatched"
_MIDDLE: Final = 25
"""Percent of the first round, of which alone a report says how far it has come; half of its pages may wait."""


@dataclass(frozen=True, slots=True)
class Laboratory:
    """A site that runs, with what looks at its machines from outside."""

    agents: dict[str, HostAgent]
    handoffs: Handoffs
    configuration: Path
    run_directories: dict[str, Path]
    folder: Path
    """Below it lies everything that the site's processes write."""
    machines: set[str] = field(default_factory=set)
    """Those that are or were here."""

    def complaints_of(self, machine: str, logs: Logs) -> tuple[str, ...]:
        """Return the new warnings and errors of `logs` but for those that name another machine of the site."""
        others = self.machines - {machine}
        return tuple(line for line in logs.new_complaints() if not any(other in line for other in others))


async def run_through_agents(scenario: Scenario, laboratory: Laboratory) -> Observation:
    """Run one scenario and return what was seen; nothing of its machine is left.

    Nobody chooses when real agents sync, nor how soon a guest does what it is told: a write that is to be lost may be
    synced all the same, or come to a page that is dirty already. Where pages are to be lost, a run in which none was is
    followed by another, up to PLAYS in all.

    Raises:
        InvalidInput: It needs what only one process has: sparse RAM, injected failures, exact moments.
        MigrationError: An agent did not do what it was asked.
    """
    require_agents_can(scenario)
    plays = PLAYS if scenario.document.expect.pages_lost == "some" else 1
    while True:
        seen, plays = await _played(scenario, laboratory), plays - 1
        if seen.lost_pages != frozenset() or not plays:
            return seen


async def _played(scenario: Scenario, laboratory: Laboratory) -> Observation:
    source = laboratory.agents[_SOURCE]
    status = await source.create(scenario.machine)
    laboratory.machines.add(status.machine)
    try:
        return await _Run(scenario, laboratory, status).run()
    finally:
        for agent in laboratory.agents.values():
            with contextlib.suppress(MigrationError):  # it is on one of them
                await agent.destroy(status.machine)


def require_agents_can(scenario: Scenario) -> None:
    """Accept what real agents can show.

    Raises:
        InvalidInput: They cannot, and why.
    """
    run = scenario.document.run
    reasons = [
        (run.in_process_only, "it says so (run.in_process_only)"),
        (run.kind == "dirty-rate", "only one process knows which pages were written in a window"),
        (run.kind == "update", "only one process takes a part of an update away"),
        (run.sparse or run.host_page_size != 4096, "its memory is not this host's"),
        (any(action.do.startswith("fail-") for action in scenario.document.action), "it has the host fail"),
        (any(action.at == "pausing" for action in scenario.document.action), "it acts between harvest and pause"),
    ]
    told = [reason for holds, reason in reasons if holds]
    if told:
        text = f"{scenario.name} runs in process only: {', '.join(told)}"
        raise InvalidInput("in-process-only", text, "Add --in-process")


class _Run:
    def __init__(self, scenario: Scenario, laboratory: Laboratory, status: MachineStatus) -> None:
        self._scenario = scenario
        self._laboratory = laboratory
        self._source = laboratory.agents[_SOURCE]
        self._machine = status.machine
        self._console = Console(laboratory.run_directories[_SOURCE], status.machine)
        self._logs = Logs(laboratory.folder)
        self._switches = 0
        self._key: AttemptKey | None = None
        self._came: set[str] = set()

    async def run(self) -> Observation:
        document = self._scenario.document
        if document.run.kind == "plan":
            return await self._plan()
        await self._until_it_works()
        await asyncio.sleep(document.run.work_ms / 1000)  # the time that the scenario gives the guest
        await self._act(_START)
        self._switches = (await self._console.look()).switches
        self._logs.new_complaints()  # of what was before
        async with asyncio.TaskGroup() as group:
            follower = group.create_task(self._follow(), name="moments")
            result = await migrate(self._order())
            follower.cancel()
        return await self._observed(result)

    def _complaints(self) -> tuple[str, ...]:
        return self._laboratory.complaints_of(self._machine, self._logs)

    async def _plan(self) -> Observation:
        found = await preflight(self._order())
        return Observation(
            outcome="blocked" if found.blockers else "allowed",
            error="; ".join(blocker.message for blocker in found.blockers),
            blockers=tuple(blocker.code for blocker in found.blockers),
            warnings=tuple(warning.code for warning in found.warnings),
            planned_standstill_ms=0.0 if found.expected is None else found.expected.downtime_ms,
        )

    def _order(self) -> Order:
        run = self._scenario.document.run
        return Order(self._scenario.name, _DESTINATION, run, self._laboratory.configuration)

    async def _until_it_works(self) -> None:
        wants_jobs = any(device.dma_rate for device in self._scenario.machine.device)
        try:
            async with asyncio.timeout(_WORK_SECONDS):
                while wants_jobs and not (await self._source.look(self._machine)).guest.jobs_done:  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            text = f"The guest of {self._scenario.name} did no work within {_WORK_SECONDS:.0f} s"
            raise AttemptFailed("no-work", text, "Run it again with --debug") from None

    async def _follow(self) -> None:
        """Act at the moments of the attempt."""
        self._key = await self._attempt_key()
        async with contextlib.aclosing(self._source.watch(self._key)) as reports:
            async for report in reports:
                for moment in _moments(report):
                    if moment not in self._came:
                        self._came.add(moment)
                        await self._act(moment, _until_middle(moment, report, self._scenario.document.run.bandwidth))

    async def _attempt_key(self) -> AttemptKey:
        while not (status := await self._source.look(self._machine)).attempt:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(_LOOK_SECONDS)
        return AttemptKey(machine=self._machine, attempt=status.attempt, epoch=status.epoch)

    async def _act(self, moment: str, seconds: float = 0.0) -> None:
        """Do what happens at a moment, which is so many seconds away."""
        due = [action for action in self._scenario.document.action if action.at == moment]
        if due:
            await asyncio.sleep(seconds)
        for action in due:
            try:
                await self._console.type(action.do, action.device)
            except AttemptFailed:
                if moment == _START:
                    raise
                self._came.discard(moment)  # the machine has moved before all of it could be done
                return
            # What is done late is done at the destination: the machine may have gone by then.
            with contextlib.nullcontext() if action.do == "quiet" else contextlib.suppress(AttemptFailed):
                await self._console.until_done()

    async def _observed(self, result: MigrationResult) -> Observation:
        refused, lost = await self._pages(result)
        at = _DESTINATION if result.outcome == "completed" else _SOURCE
        await asyncio.sleep(_AFTERWARDS_SECONDS)  # the guest works on, wherever it is now
        after = await Console(self._laboratory.run_directories[at], self._machine).look()
        return Observation(
            outcome=_outcome(result),
            error=_error(result),
            blockers=tuple(found.code for found in result.blockers),
            warnings=tuple(found.code for found in result.warnings),
            refused_pages=refused,
            lost_pages=lost,
            guest_errors=after.errors,
            standstill_ms=result.downtime_ms or 0.0,
            rounds=result.rounds_closed or len(result.rounds),
            switches=after.switches - self._switches,
            complaints=self._complaints() if result.outcome == "completed" else (),
            missed=self._missed() if _outcome(result) == "completed" else (),
        )

    def _missed(self) -> tuple[str, ...]:
        wanted = dict.fromkeys(action.at for action in self._scenario.document.action if action.at != _START)
        return tuple(moment for moment in wanted if moment not in self._came)

    async def _pages(self, result: MigrationResult) -> tuple[frozenset[int] | None, frozenset[int] | None]:
        """Return the verifier's pages and the oracle's.

        Raises:
            InternalError: The oracle could not look, which is why the attempt failed.
        """
        handoffs = self._laboratory.handoffs
        if self._machine in handoffs.failures:
            text = f"Memory of {self._scenario.name} could not be compared: {handoffs.failures[self._machine]}"
            raise InternalError("no-comparison", text, "Run it again with --debug")
        lost = handoffs.seen.get(self._machine)
        if result.outcome == "completed":
            return frozenset(), lost
        if result.error is None or result.error.code != _DIFFERENT or self._key is None:
            return None, None
        report = await self._source.report(self._key)
        return refused_pages(tuple(report.mismatched_pages), result.pages_mismatched, lost or frozenset()), lost


def refused_pages(named: Sequence[int], count: int, lost: frozenset[int]) -> frozenset[int]:
    """Return the verifier's pages, of which an agent names the first thousand and counts the rest.

    Those that it does not name are taken to be the oracle's where the count and all that are named agree.
    """
    if count == len(lost) and tuple(named) == tuple(sorted(lost)[: len(named)]):
        return lost
    return frozenset(named)


def _moments(report: AttemptReport) -> Iterator[str]:
    """Name the moments that a report shows to have come; of a later round it shows the beginning."""
    if report.phase == "pre-copy":
        yield "tracking"
        if report.rounds or report.percent >= _MIDDLE:
            yield "round-0"
        yield from (f"round-{number}" for number in range(1, _closed(report) + 1))


def _closed(report: AttemptReport) -> int:
    """Return how many rounds there were, of which a report holds some."""
    return report.rounds_closed or len(report.rounds)


def _until_middle(moment: str, report: AttemptReport, bandwidth: int) -> float:
    """Return after how many seconds half of a round that a report shows to begin will have been sent."""
    begins = moment == f"round-{_closed(report)}" and bool(report.rounds)
    return report.remaining_bytes / bandwidth / 2 if begins else 0.0


def _error(result: MigrationResult) -> str:
    """Return the text of the stream's end, or of what blocks it; the verifier's refusal is told apart."""
    if result.blockers:
        return "; ".join(blocker.message for blocker in result.blockers)
    return "" if result.error is None or result.error.code == _DIFFERENT else result.error.message


def _outcome(result: MigrationResult) -> str:
    """Tell what the stream came to: one whose pages differ had completed before the verifier refused it."""
    if result.outcome == "refused":
        return "blocked"
    if result.error is not None and result.error.code == _DIFFERENT:
        return "completed"
    return result.outcome
