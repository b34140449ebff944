"""What a daemon tells the service manager that runs it (sd_notify(3)): that it serves, that it stops, that it lives.

::

    NOTIFY_SOCKET    where the manager listens; @ stands for the null byte of an abstract name. Unset: nobody is told
    WATCHDOG_USEC    the manager ends a process that has said WATCHDOG=1 for so long no more; we say it at half of that
    WATCHDOG_PID     whom that is meant for; unset, or another process's: see sd_watchdog_enabled(3)

What is said comes from the event loop: one that hangs says nothing, and is ended with SIGABRT, at which every thread's
stack is written to stderr.
"""

import asyncio
import faulthandler
import os
import socket
from collections.abc import Mapping
from typing import Final

from vm_migration.telemetry import logs

_log: Final = logs.get(__name__)


def tell(*states: str) -> None:
    """Tell the service manager, where one listens; one that cannot be told is no reason to fail."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
            manager.sendto("\n".join(states).encode(), address)
    except OSError as error:
        _log.warning("service manager not told", state=states[0], exc_info=error)


def watched_for(environment: Mapping[str, str], pid: int) -> float | None:
    """Return after how many seconds of silence the manager ends this process; None where it does not."""
    text = environment.get("WATCHDOG_USEC", "")
    if not (text.isascii() and text.isdecimal()) or int(text) == 0:
        return None
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(text) / 1e6


async def show_life() -> None:
    """Say for ever that the event loop runs, where the manager wants to hear it."""
    seconds = watched_for(os.environ, os.getpid())
    if seconds is None:
        return
    faulthandler.enable()
    while True:
        tell("WATCHDOG=1")
        await asyncio.sleep(seconds / 2)  # what is shown is that the loop comes round in time; it has no event
