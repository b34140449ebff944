"""Runs a command that, with all it starts, has no capability and cannot gain any, as the daemons' units have it.

Usage: python -m tests.deprived.without_capabilities COMMAND [ARGUMENT ...]
"""

import ctypes
import os
import sys
from pathlib import Path

_PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP = 38, 24


def drop() -> None:
    """Take every capability from what this process executes, for good; a user without any has none to lose.

    Raises:
        OSError: The kernel refused it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    calls = [(_PR_SET_NO_NEW_PRIVS, 1)]
    if os.geteuid() == 0:
        calls += [(_PR_CAPBSET_DROP, number) for number in range(last + 1)]
    for call, value in calls:
        if libc.prctl(call, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "Capabilities cannot be dropped")


if __name__ == "__main__":
    drop()
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606  # the command that we were given
