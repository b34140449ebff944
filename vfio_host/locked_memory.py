"""How much of a process's memory may be locked because devices reach it: RLIMIT_MEMLOCK, where it is heeded.

The kernel charges a mapping's pages to the process whose it is, and refuses with ENOMEM what is more than its limit:
a mapping, and also a mapping that becomes another process's (semantics 3.3, 9.4, 9.5). iommufd charges processes in its
mode RLIMIT_MODE only, and else the user, who is the same before and after.
"""

import errno
from collections.abc import Callable

from vfio_host.errors import CallRefused

MayLock = Callable[[int, int], bool]
"""Whether a process may have so many bytes more."""


def unlimited(_process: int, _size: int) -> bool:
    """Allow it to every process, as CAP_IPC_LOCK does."""
    return True


def require_room(may_lock: MayLock, process: int, size: int) -> None:
    """Refuse what is over a process's limit. ENOMEM, and nothing was charged."""
    if size and not may_lock(process, size):
        raise CallRefused(errno.ENOMEM, f"Process {process} may not have {size} bytes more locked")
