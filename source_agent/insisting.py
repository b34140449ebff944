"""Repeating what must come to an end for as long as that takes, and saying what it waits for."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from vm_migration.errors import InternalError, MigrationError, Stale, Unreachable, Unresolved
from vm_migration.machine.errors import MachineError
from vm_migration.telemetry import logs

_BACKOFF: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_Result = TypeVar("_Result")
_log: Final = logs.get(__name__)


def pause_before(retry: int, longest: float = _BACKOFF[-1]) -> float:
    """Return how many seconds to wait before a retry, counted from 0."""
    return min(longest, _BACKOFF[-1] * 2 ** (retry - len(_BACKOFF) + 1) if retry >= len(_BACKOFF) else _BACKOFF[retry])


_PASSING: Final = frozenset({"journal-moved", "machine-cut-off"})


def may_pass(error: MigrationError) -> bool:
    """Tell whether a peer may answer otherwise in a moment: it is silent, its disk fails, or its journal was moved."""
    return isinstance(error, Unreachable | Unresolved | InternalError) or error.code in _PASSING


async def insist(
    step: Callable[[], Awaitable[_Result]],
    tell: Callable[[str], None],
    rest: Callable[[float], Awaitable[None]] | None = None,
) -> _Result:
    """Repeat an idempotent step until it succeeds; `tell` is given why it did not.

    `rest` waits between two tries, for so many seconds or until somebody wants the next.

    Raises:
        Stale: Somebody else has the machine in hand: this agent has no say any more.
    """
    for retry in itertools.count():
        try:
            return await step()
        except Stale:
            raise
        except (MigrationError, MachineError) as error:
            _log.warning("not settled yet", reason=str(error))
            tell(str(error))
        except Exception as error:  # noqa: BLE001 - a machine must not stay stopped because of our own fault
            _log.error("not settled yet, by our own fault", exc_info=error)
            tell(f"internal error: {type(error).__name__}")
        await (rest or asyncio.sleep)(pause_before(retry))
    raise AssertionError("The count of retries has no end")
