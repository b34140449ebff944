"""What the packages below the link raise leaves a daemon as the kind that says what to do about it."""

import errno

import grpc
import pytest

from vm_migration.errors import MigrationError, Refused, Stale, Unreachable
from vm_migration.handover.journal_errors import (
    JournalBusy,
    JournalExists,
    JournalMoved,
    JournalUncertain,
    JournalUnreadable,
    JournalUnwritable,
)
from vm_migration.handover.states import IllegalTransition, State
from vm_migration.link.boundary import of_machine
from vm_migration.link.status import KIND, to_status
from vm_migration.machine.errors import CutOff, LaunchFailed, MachineError, MachineGone, MachineRefused

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (JournalExists("m"), "refused", grpc.StatusCode.FAILED_PRECONDITION),
        (JournalUnwritable("m", FULL), "refused", grpc.StatusCode.FAILED_PRECONDITION),
        (JournalMoved("m"), "stale", grpc.StatusCode.ABORTED),
        (JournalUnreadable("m", "missing"), "unreachable", grpc.StatusCode.UNAVAILABLE),
        (JournalBusy("m"), "unreachable", grpc.StatusCode.UNAVAILABLE),
        (JournalUncertain("m", "RELEASED", FULL), "unresolved", grpc.StatusCode.FAILED_PRECONDITION),
        (
            IllegalTransition(State.RETIRED, frozenset({State.STOPPED}), State.RELEASED),
            "refused",
            grpc.StatusCode.FAILED_PRECONDITION,
        ),
    ],
)
def test_a_kind_of_a_kind_crosses_as_its_root(error: MigrationError, kind: str, code: grpc.StatusCode) -> None:
    status, message, metadata = to_status(error)
    assert (status, message) == (code, error.message)
    assert dict(metadata)[KIND] == kind


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (MachineGone("silent"), Unreachable, "machine-silent"),
        (CutOff("newer"), Stale, "machine-cut-off"),
        (MachineRefused("it runs"), Refused, "machine-refused"),
        (LaunchFailed("no memory"), Refused, "machine-refused"),
    ],
)
def test_a_machine_process_fails_with_a_meaning(error: MachineError, kind: type[MigrationError], code: str) -> None:
    found = of_machine(error)
    assert (type(found), found.code) == (kind, code)
    assert str(error) in found.message
