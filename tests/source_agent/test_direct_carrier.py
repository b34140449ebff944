"""What becomes of frames that wait for their thread when one of them cannot be written."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from source_agent.bulk_stream import Unsent
from source_agent.direct_carrier import DirectCarrier
from vm_migration.link.direct_threads import DirectThreads
from vm_migration.link.direct_wire import Buffer


class BreakingWire:
    """A wire that fails once, and would take what comes after."""

    def __init__(self, error: Exception) -> None:
        self.written: list[bytes] = []
        self.asked = 0
        self.may_fail = threading.Event()
        self._error = error

    def write(self, parts: Sequence[Buffer], deadline: float | None = None) -> None:
        self.asked += 1
        if self.asked == 1:
            assert self.may_fail.wait(20)
            raise self._error
        self.written.append(b"".join(parts))

    def read_exactly(self, into: memoryview, deadline: float | None = None) -> bool:
        raise NotImplementedError

    def fill(self, places: Sequence[memoryview]) -> None:
        raise NotImplementedError

    def drain(self, deadline: float) -> None:
        raise NotImplementedError

    def shut(self) -> None:
        self.may_fail.set()

    def close(self) -> None:
        pass


@pytest.mark.parametrize("error", [OSError(105, "No buffer space available"), MemoryError()], ids=["system", "memory"])
async def test_after_a_frame_that_is_missing_none_follows_and_nobody_waits(error: Exception) -> None:
    wire = BreakingWire(error)
    carrier = DirectCarrier(DirectThreads(wire), "host-b")
    for number in range(4):
        await carrier.write((b"%d" % number,))
    wire.may_fail.set()
    with pytest.raises(Unsent):
        async with asyncio.timeout(20):
            await carrier.write((b"one that waits for room",))
    carrier.close()
    assert (wire.asked, wire.written) == (1, [])
