"""Taking a machine's journal back when this host's other agent has opened it in between.

Both agents of a host may open a machine's journal: the destination agent does so when it hears, late, that the former
source has retired. Whoever held it learns of that at its next append, with nothing written; a whole operation is then
begun anew.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from vm_migration.handover.journal_errors import JournalMoved

_TRIES: Final = 4
_Result = TypeVar("_Result")


async def retaken(operation: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run an operation that opens the journal itself and may be begun anew.

    Raises:
        JournalMoved: Somebody takes the journal again and again.
    """
    for _ in range(_TRIES - 1):
        try:
            return await operation()
        except JournalMoved:
            continue
    return await operation()
