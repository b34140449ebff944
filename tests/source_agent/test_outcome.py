"""What an attempt is said to have failed with."""

import pytest

from source_agent.outcome import as_asked, ended, failure_of, unexpected
from source_agent.progress import Outcome, Phase, Progress
from source_agent.switchover import PagesDiffer
from vm_migration.api.v1.destination_pb2 import FinishResponse
from vm_migration.errors import AttemptFailed, Stale
from vm_migration.handover.states import State
from vm_migration.machine.errors import MachineGone

LINK = AttemptFailed("stream-closed", "Gone", "Look")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LINK, "stream-closed"),
        (BaseExceptionGroup("streams", [BaseExceptionGroup("devices", [LINK]), ValueError()]), "stream-closed"),
        (MachineGone("silent"), "attempt-failed"),
        (OSError("broken"), "attempt-failed"),
    ],
)
def test_streams_that_fail_together_fail_for_one_reason(error: BaseException, code: str) -> None:
    failure = failure_of(error, cancelled=False)
    assert failure is not None
    assert failure.code == code


def test_our_own_fault_is_told_apart_and_its_text_is_the_first_errors() -> None:
    ours = BaseExceptionGroup("streams", [ZeroDivisionError("by nought")])
    assert failure_of(ours, cancelled=False) is None
    assert unexpected(ours).message.endswith("by nought")


def test_what_breaks_in_a_cancelled_attempt_is_its_cancellation() -> None:
    cancelled = failure_of(LINK, cancelled=True)
    assert cancelled is not None
    assert cancelled.code == "cancelled"
    taken = Stale("stale-epoch", "Somebody else", "")
    assert failure_of(taken, cancelled=True) is taken


def test_the_end_is_shown_by_the_journals_state() -> None:
    assert ended(Progress(), as_asked(), State.ABORTED).outcome is Outcome.CANCELLED
    lost = ended(Progress(), LINK, State.LOST)
    assert (lost.phase, lost.outcome) == (Phase.LOST, Outcome.LOST)
    differ = PagesDiffer(FinishResponse(pages_verified=7, pages_mismatched=2, mismatched_pages=[3, 4]))
    shown = ended(Progress(), differ, State.ABORTED)
    assert (shown.pages_verified, shown.pages_mismatched, shown.mismatched) == (7, 2, (3, 4))
