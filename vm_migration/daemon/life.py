"""The life of a daemon, from its first log line to its exit code.

::

    start -> the service manager is shown that the event loop runs, to the end
          -> ready: one JSON line on stdout, READY=1 to the service manager
          -> SIGTERM or SIGINT: STOPPING=1, `stopped` returns, the body has `stop_deadline` seconds to leave
          -> past them, or at the second signal: the body is cancelled
    exit  0 after a stop that was asked for; else as the error says (vm_migration.errors), in two lines on stderr
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TextIO

from vm_migration.daemon.complaint import complaint
from vm_migration.daemon.service_manager import show_life, tell
from vm_migration.errors import InternalError, innermost
from vm_migration.telemetry import logs

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_log: Final = logs.get(__name__)


class Life:
    """What a daemon's body sees of it."""

    def __init__(self, process: str) -> None:
        self._process = process
        self._stop = asyncio.Event()

    def ready(self, **facts: str | int) -> None:
        """Tell whoever started us that we serve now, and where."""
        line = {"event": "ready", "process": self._process, "pid": os.getpid(), **facts}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        where = " ".join(f"{name} {fact}" for name, fact in facts.items())
        tell("READY=1", f"STATUS=Serves: {where}" if where else "STATUS=Serves")
        _log.info("ready", **facts)

    async def stopped(self) -> None:
        """Wait until somebody asks us to stop."""
        await self._stop.wait()

    @property
    def stopping(self) -> bool:
        """Whether somebody has asked us to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask for a stop, as a signal does."""
        if not self._stop.is_set():
            _log.info("stopping")
            tell("STOPPING=1", "STATUS=Stops")
            self._stop.set()


def run(
    process: str, body: Callable[[Life], Awaitable[None]], *, stop_deadline: float = 10.0, debug: bool = False
) -> int:
    """Run a daemon to its end and return its exit code; `debug` shows tracebacks."""
    logs.configure(process, "debug" if debug else "info", traces=debug)
    try:
        asyncio.run(_live(process, body, stop_deadline))
    except Exception as error:  # noqa: BLE001  # the last place: everything ends as an exit code and two lines
        return report_error(error, sys.stderr, debug=debug)
    return 0


async def _live(process: str, body: Callable[[Life], Awaitable[None]], stop_deadline: float) -> None:
    life = Life(process)
    task = asyncio.ensure_future(body(life))
    task.set_name(process)
    showing = asyncio.create_task(show_life(), name="watchdog")
    with _signals(life, task):
        asking = asyncio.create_task(life.stopped(), name="stop-signal")
        await asyncio.wait([task, asking], return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        if not task.done():
            await asyncio.wait([task], timeout=stop_deadline)
        overdue = not task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    showing.cancel()
    if overdue:
        message = f"{process} did not stop within {stop_deadline:g} s and was cut off"
        raise InternalError("stop-overdue", message, "See its log for what it was doing")
    _log.info("stopped")


@contextlib.contextmanager
def _signals(life: Life, task: asyncio.Future[None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def received() -> None:
        if life.stopping:
            task.cancel()
        life.stop()

    for number in _SIGNALS:
        loop.add_signal_handler(number, received)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def report_error(error: BaseException, stream: TextIO, *, debug: bool = False) -> int:
    """Write what went wrong and what to do, each in one line; return the exit code."""
    if debug:
        traceback.print_exception(error, file=stream)
    told = complaint(error)
    if told.exit_code == InternalError.exit_code:
        _log.error("failed", exc_info=innermost(error))
    told.write(stream)
    return told.exit_code
