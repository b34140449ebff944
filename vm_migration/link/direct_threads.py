"""Two threads for one direct stream, one that reads and one that writes, and an end that leaves neither behind."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from vm_migration.link.direct_wire import Wire

_Result = TypeVar("_Result")


class DirectThreads:
    """Runs what waits on a wire beside the loop; `close` ends all of it."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        """What is worked on; one that goes on with its connection may take its place while no thread is at work."""
        self._threads: Final = ThreadPoolExecutor(2, thread_name_prefix="direct-stream")

    def begin(self, act: Callable[[], _Result]) -> "asyncio.Future[_Result]":
        """Begin something at once and return what it comes to; who waits for that and is cancelled does not end it."""
        begun = asyncio.get_running_loop().run_in_executor(self._threads, act)
        begun.add_done_callback(_noted)
        return begun

    def close(self) -> None:
        """End the connection and both threads, which takes no longer than a write that does not wait."""
        self.wire.shut()
        self._threads.shutdown()
        self.wire.close()


def _noted(done: "asyncio.Future[_Result]") -> None:
    """Look at a failure, so that it is not told as one that nobody looked at: a stream's end makes others fail."""
    if not done.cancelled():
        done.exception()
