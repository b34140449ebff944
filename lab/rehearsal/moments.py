"""What happens at the named moments of a scenario."""

from collections.abc import Sequence
from typing import Final

from lab.rehearsal.side import Side
from lab.scenario import Action
from vm_migration.errors import InvalidInput
from vmm.guest.console import ConsoleRefused, GuestAction

_PATIENCE: Final = 4000
"""Milliseconds in which the guest must have done what it was told."""
_HOST_FAILS: Final = {"fail-query": "query", "fail-unmap": "unmap"}


class Moments:
    """Carries a scenario's actions out; each returns when the guest has done what it was told."""

    def __init__(self, actions: Sequence[Action], side: Side) -> None:
        self._actions: Final = tuple(actions)
        self._side: Final = side

    @property
    def last_round(self) -> int:
        """The last round in which something happens; -1 for none."""
        rounds = [action.at.removeprefix("round-") for action in self._actions if action.at.startswith("round-")]
        return max(map(int, rounds), default=-1)

    def arrive(self, moment: str) -> bool:
        """Do everything that happens at a moment, in its order; return whether there was anything.

        Raises:
            InvalidInput: The guest cannot do what it is told.
        """
        due = [action for action in self._actions if action.at == moment]
        for action in due:
            self._do(action)
        return bool(due)

    def _do(self, action: Action) -> None:
        what = _HOST_FAILS.get(action.do)
        if what is not None:
            self._side.host.fail_next(what, action.times)
            return
        try:
            self._side.machine.guest_command(GuestAction(action.do), action.device)
        except ConsoleRefused as error:
            raise InvalidInput(
                "guest-refuses", f"Guest refuses to {action.do}: {error}", "Correct the action"
            ) from error
        self._side.world.wake()
        for _ in range(_PATIENCE):
            if not self._side.machine.report().busy_actions:
                return
            self._side.world.run_for(1)
