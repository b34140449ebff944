"""The site's own commands around a migration, as far as whoever drives it runs them.

`before_handoff` is the source agent's, `after_active` the destination agent's, which stands where the machine is.
"""

from orchestrator.attempt import Attempt, Notice
from vm_migration.daemon.configuration import Configuration
from vm_migration.daemon.hooks import HookContext, HookPoint, HookReport, run_hooks


class SiteHooks:
    """Runs what `[hooks]` names."""

    def __init__(self, configuration: Configuration) -> None:
        self._hooks = configuration.hooks

    async def before_prepare(self, attempt: Attempt) -> None:
        """Run the commands that must succeed before the destination is prepared.

        Raises:
            Refused: One failed or took too long: `hook-failed`.
        """
        await self._run(HookPoint.BEFORE_PREPARE, attempt)

    async def after_abort(self, attempt: Attempt) -> tuple[Notice, ...]:
        """Run what follows an aborted attempt; what failed is returned."""
        return _failed(await self._run(HookPoint.AFTER_ABORT, attempt))

    async def _run(self, point: HookPoint, attempt: Attempt) -> tuple[HookReport, ...]:
        context = HookContext(attempt.attempt, attempt.machine, attempt.epoch, attempt.source)
        return await run_hooks(point, self._hooks.commands(point), context, self._hooks.deadline)


def _failed(reports: tuple[HookReport, ...]) -> tuple[Notice, ...]:
    return tuple(Notice("hook-failed", str(report)) for report in reports if not report.ok)
