"""What can go wrong between two hosts, named for what the caller can do about it.

::

    MigrationError(code, message, hint)     exit code
    +-- InvalidInput       correct the input and ask again               2
    +-- Refused            a blocker, a limit, not authorised            3
    |   +-- Stale          an older epoch or term; somebody else drives  3
    |   +-- Missed         a newer epoch than this host has seen         3
    |   +-- Unauthorised   this identity may not do this                 3
    |   +-- Unreachable    a host, a machine or a broker does not answer 3
    +-- AttemptFailed      the machine runs on its source                4
    +-- Cancelled          as asked; the machine runs on its source      5
    +-- Unresolved         ownership is open: `viaduct recover`          6
    +-- MachineLost        the machine is gone, its memory with it       7
    +-- InternalError      our own fault                                 1

`code` is stable and machine-readable; `message` says what and why in one line, `hint` what to do in one line.
vm_migration.link.status is the one table between these and gRPC's status codes.
"""

from typing import ClassVar


class MigrationError(Exception):
    """The root; raised only through its kinds."""

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class InvalidInput(MigrationError):
    """The request itself is wrong; nothing was done."""

    exit_code: ClassVar[int] = 2


class Refused(MigrationError):
    """The request was understood and refused before any side effect."""

    exit_code: ClassVar[int] = 3


class Stale(Refused):
    """The caller's epoch or term is older than the journal's."""


class Missed(Refused):
    """The caller knows an epoch that this host has not seen."""


class Unauthorised(Refused):
    """The peer's identity may not make this call."""


class Unreachable(Refused):
    """Nobody answered within the deadline; nothing is concluded from that."""


class AttemptFailed(MigrationError):
    """The attempt ended before the point of no return; the machine runs on its source."""

    exit_code: ClassVar[int] = 4


class Cancelled(MigrationError):
    """The attempt was cancelled before the point of no return; the machine runs on its source."""

    exit_code: ClassVar[int] = 5


class Unresolved(MigrationError):
    """The journals do not decide who owns the machine."""

    exit_code: ClassVar[int] = 6


class MachineLost(MigrationError):
    """No whole copy of the machine is left."""

    exit_code: ClassVar[int] = 7


class InternalError(MigrationError):
    """A fault of ours."""


def innermost(error: BaseException) -> BaseException:
    """Return the first error of a group, however deep, or the error itself: one fault is told, not its echoes."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
