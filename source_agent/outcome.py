"""How an attempt came out that did not complete: what it failed with, and what is shown of its end; pure."""

from dataclasses import replace

from source_agent.progress import FailureText, Outcome, Phase, Progress
from source_agent.switchover import PagesDiffer
from vm_migration.errors import AttemptFailed, Cancelled, MigrationError, Stale
from vm_migration.handover.states import State
from vm_migration.machine.errors import MachineError
from vm_migration.transfer.errors import TransferError


def as_asked() -> Cancelled:
    """Return what a cancelled attempt ends with."""
    return Cancelled("cancelled", "Migration was cancelled", "The machine runs on its source")


def failure_of(error: BaseException, *, cancelled: bool) -> MigrationError | None:
    """Return what an attempt fails with, in this project's errors; None for what nobody foresaw.

    A cancelled attempt ends as cancelled whatever broke on the way, unless somebody else has taken it in hand.
    """
    error = _first(error)
    if cancelled and not isinstance(error, Stale):
        return as_asked()
    if isinstance(error, MigrationError):
        return error
    return unexpected(error) if isinstance(error, MachineError | TransferError | OSError) else None


def unexpected(error: BaseException) -> AttemptFailed:
    """Return what an attempt fails with for an error of another kind."""
    text = f"Attempt failed: {_first(error)}"
    return AttemptFailed("attempt-failed", text, "The machine stays at its source; try again")


def ended(progress: Progress, failure: MigrationError, state: State) -> Progress:
    """Return what is shown of an attempt that ended in a state of its journal: aborted, or lost with its machine."""
    outcome = Outcome.CANCELLED if isinstance(failure, Cancelled) else Outcome.FAILED
    shown = replace(progress, phase=Phase.ABORTED, outcome=outcome, failure=text_of(failure), reason="")
    if state is State.LOST:
        text = FailureText("machine-lost", "The machine's process ended during the attempt", "Create it anew")
        shown = replace(shown, phase=Phase.LOST, outcome=Outcome.LOST, failure=text)
    if isinstance(failure, PagesDiffer):
        shown = replace(
            shown,
            pages_verified=failure.verified,
            pages_mismatched=failure.mismatched_count,
            mismatched=failure.mismatched,
        )
    return shown


def text_of(failure: MigrationError) -> FailureText:
    """Return what is told of a failure."""
    return FailureText(failure.code, failure.message, failure.hint)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):  # streams that fail together fail for one reason
        error = error.exceptions[0]
    return error
