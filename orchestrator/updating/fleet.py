"""All machines of a host, updated some at a time: whoever orders it begins the next one when one has ended.

All are asked about before any is begun. At the first that does not complete nothing more is begun; what runs goes on to
its end.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from orchestrator.attempt import EXIT_CODES, Attempt, Outcome, blocked
from orchestrator.evacuation.plan import worst_of
from vm_migration.errors import MigrationError, innermost

MOST_PARALLEL: Final = 16
"""As many attempts as an agent has open at a time."""


@dataclass(frozen=True, slots=True)
class FleetResult:
    """The updates in the order in which they ended, and the machines that none was begun of, by name."""

    ended: tuple[Attempt, ...]
    left: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """The worst of them all."""
        return worst_of(exit_code(one) for one in self.ended)

    @property
    def worst(self) -> Attempt | None:
        """The first that ended as the worst did; None where all completed."""
        return next((one for one in self.ended if exit_code(one) and exit_code(one) == self.exit_code), None)


def exit_code(attempt: Attempt) -> int:
    """Return what a command exits with that updated this one machine."""
    return 0 if attempt.outcome is None else EXIT_CODES[attempt.outcome]


def sorted_out(asked: Sequence[Attempt]) -> tuple[tuple[Attempt, ...], tuple[str, ...]]:
    """Return those against which something speaks, as they are refused, and the names of the others."""
    held = tuple(
        replace(one, outcome=Outcome.REFUSED, error=blocked(one, one.blockers)) for one in asked if one.blockers
    )
    return held, tuple(one.name for one in asked if not one.blockers)


async def update_all(
    machines: Sequence[str],
    parallel: int,
    update: Callable[[str], Awaitable[Attempt]],
    wanted: Callable[[], bool] = lambda: True,
) -> FleetResult:
    """Update machines, `parallel` at once, until one does not complete or it is not `wanted` any more.

    Raises:
        MigrationError: What `update` raised; nothing more was begun, and what ran was left.
    """
    waiting, ended = deque(machines), list[Attempt]()

    async def work() -> None:
        while waiting and wanted() and all(one.outcome is Outcome.COMPLETED for one in ended):
            ended.append(await update(waiting.popleft()))

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(min(parallel, len(machines))):
                group.create_task(work(), name=f"update {number}")
    except* MigrationError as errors:
        raise innermost(errors) from None
    return FleetResult(tuple(ended), tuple(waiting))
