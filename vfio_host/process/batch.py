"""One batch of calls on one open file: decoded, carried out in order, and answered.

A call whose answer would not fit into the message is refused before it does anything: a bitmap that was read and
cleared but never arrived would be writes lost.
"""

import errno
from collections.abc import Callable, Sequence
from typing import Final

from vfio_host.dirty_bits import bitmap_bytes
from vfio_host.errors import CallRefused
from vfio_host.interface import calls, numbers
from vfio_host.interface.calls import Answer, AnyCall, Failed, Opened
from vfio_host.interface.channel import MAX_DESCRIPTORS, MAX_MESSAGE, close_all
from vfio_host.interface.numbers import MAX_DIRTY_BITMAP_BYTES, PAGE_SIZE
from vfio_host.process.open_file import OpenFile, Opening, Received

_OPENING: Final = calls.Open | calls.GroupGetDevice | calls.SetDeviceState
_ANSWER_ROOM: Final = 32
"""More than the frame of any one answer takes, and than its fixed fields but ranges."""


class BatchAnswer:
    """Answers being put together, with the descriptors that they give away."""

    def __init__(self, publish: Callable[[OpenFile], int]) -> None:
        self._publish: Final = publish
        self._answers: list[Answer] = []
        self._room = MAX_MESSAGE - PAGE_SIZE
        self.descriptors: Final[list[int]] = []

    def carry_out(self, file: OpenFile, call: AnyCall, received: Received) -> None:
        """Do one call and keep its answer."""
        needed = _ANSWER_ROOM + _payload(call)
        if needed > self._room:
            self._answers.append(Failed(errno.ENOMEM))
            return
        self._room -= needed
        try:
            self._answers.append(self._answer(file, call, received))
        except CallRefused as refusal:
            self._answers.append(Failed(refusal.errno))
        except OSError as error:  # this process's own limits: descriptors, above all
            self._answers.append(Failed(error.errno or errno.EIO))
        except MemoryError:
            self._answers.append(Failed(errno.ENOMEM))

    def encoded(self) -> bytes:
        """Return the message."""
        return calls.encode(calls.Answers(tuple(self._answers)))

    def _answer(self, file: OpenFile, call: AnyCall, received: Received) -> Answer:
        if isinstance(call, _OPENING) and len(self.descriptors) == MAX_DESCRIPTORS:
            raise CallRefused(errno.EMFILE, f"An answer carries {MAX_DESCRIPTORS} descriptors at most")
        outcome = file.call(call, received)
        if not isinstance(outcome, Opening):
            return outcome
        try:
            self.descriptors.append(self._publish(outcome.file))
        except OSError:
            outcome.file.release()
            raise
        return Opened(outcome.id, len(self.descriptors) - 1)


def answer(
    file: OpenFile, body: bytes, descriptors: Sequence[int], publish: Callable[[OpenFile], int]
) -> tuple[bytes, list[int]]:
    """Return the answers to a batch, and the descriptors that go with them; those of the batch are closed.

    `publish` serves a new open file and returns the client's descriptor of it.

    Raises:
        msgspec.DecodeError: The body is no batch; nothing was done.
    """
    try:
        batch = calls.batch_decoder.decode(body)
        received, result = Received(descriptors), BatchAnswer(publish)
        for call in batch.calls:
            result.carry_out(file, call, received)
        return result.encoded(), result.descriptors
    finally:
        close_all(descriptors)


def _payload(call: AnyCall) -> int:
    """Return how many bytes of bitmap or state a call would answer with; 0 where it will refuse for its size."""
    match call:
        case calls.HwptGetDirtyBitmap():
            return bitmap_bytes(-(-call.length // max(call.page_size, 1)))
        case calls.DirtyPages() | calls.UnmapDma(flags=numbers.UnmapFlags.GET_DIRTY_BITMAP):
            size = bitmap_bytes(-(-call.size // PAGE_SIZE))
            return size if size <= MAX_DIRTY_BITMAP_BYTES else 0
        case calls.ReadData():
            return min(call.size, PAGE_SIZE)
        case calls.GetInfo() | calls.IoasIovaRanges():
            return 256
        case _:
            return 0
