"""One batch of calls on one open file: decoded, carried out in order, and answered.

A call whose answer would not fit into the message is refused before it does anything: a bitmap that was read and
cleared but never arrived would be writes lost. How much an answer takes is known when it is made, so what is sparse
fits whatever range it is of.
"""

import errno
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from vfio_host.interface import calls
from vfio_host.interface.bitmaps import encoded_room
from vfio_host.interface.calls import Answer, AnyCall, Failed, Opened
from vfio_host.interface.channel import MAX_DESCRIPTORS, MAX_MESSAGE, close_all
from vfio_host.interface.numbers import PAGE_SIZE
from vfio_host.process.open_file import OpenFile, Opening, Received, carried_out

_OPENING: Final = calls.Open | calls.Dup | calls.GroupGetDevice | calls.SetDeviceState
_ANSWER_ROOM: Final = 256
"""More than any answer takes that holds no bitmap and no data."""
_REFUSAL_ROOM: Final = 32
"""More than an errno takes."""


class BatchAnswer:
    """Answers to so many calls being put together, with the descriptors that they give away.

    Raises:
        msgspec.ValidationError: Not even refusals of so many calls would fit into a message.
    """

    def __init__(self, calls_made: int, publish: Callable[[OpenFile], int]) -> None:
        self._publish: Final = publish
        self._answers: list[Answer] = []
        self._room = MAX_MESSAGE - PAGE_SIZE - calls_made * _REFUSAL_ROOM
        if self._room < 0:
            raise msgspec.ValidationError(f"Batch of {calls_made} calls is more than a message can answer")
        self.descriptors: Final[list[int]] = []

    def carry_out(self, file: OpenFile, call: AnyCall, received: Received) -> None:
        """Do one call and keep its answer. ENOMEM for one that has no room, without doing it."""
        if self._room < _ANSWER_ROOM:
            self._answers.append(Failed(errno.ENOMEM))
            return
        received.room = self._room - _ANSWER_ROOM
        answer = self._answer(file, call, received)
        if _taken(answer) > self._room:  # a file that did not heed its room: the loss is at least told
            answer = Failed(errno.ENOMEM)
        self._room -= _taken(answer)
        self._answers.append(answer)

    def encoded(self) -> bytes:
        """Return the message."""
        return calls.encode(calls.Answers(tuple(self._answers)))

    def _answer(self, file: OpenFile, call: AnyCall, received: Received) -> Answer:
        if isinstance(call, _OPENING) and len(self.descriptors) == MAX_DESCRIPTORS:
            return Failed(errno.EMFILE)
        if isinstance(call, calls.ReadData) and received.room is not None:  # a read may be short, as read(2) is
            call = msgspec.structs.replace(call, size=min(call.size, received.room))
        outcome = Opening(0, file) if isinstance(call, calls.Dup) else carried_out(file, call, received)
        if not isinstance(outcome, Opening):
            return outcome
        try:
            self.descriptors.append(self._publish(outcome.file))
        except OSError as error:
            if outcome.file is not file:
                outcome.file.release()
            return Failed(error.errno or errno.EIO)
        return Opened(outcome.id, len(self.descriptors) - 1)


def answer(
    file: OpenFile,
    body: bytes | bytearray,
    descriptors: Sequence[int],
    publish: Callable[[OpenFile], int],
    caller: int = 0,
) -> tuple[bytes, list[int]]:
    """Return the answers to a batch of a process, and the descriptors that go with them; those of the batch are closed.

    `publish` serves a new open file and returns the client's descriptor of it.

    Raises:
        msgspec.DecodeError: The body is no batch, or one of too many calls; nothing was done.
        UnicodeDecodeError: The body is no batch: it has text that is none. Nothing was done.
    """
    try:
        batch = calls.batch_decoder.decode(body)
        received, result = Received(descriptors, caller=caller), BatchAnswer(len(batch.calls), publish)
        for call in batch.calls:
            result.carry_out(file, call, received)
        return result.encoded(), result.descriptors
    finally:
        close_all(descriptors)


def _taken(answer: Answer) -> int:
    """Return how many bytes of the message an answer takes, at most, beside the room that every call has."""
    match answer:
        case calls.Bitmap():
            return _ANSWER_ROOM + encoded_room(answer)
        case calls.Unmapped(bitmap=calls.Bitmap() as bitmap):
            return _ANSWER_ROOM + encoded_room(bitmap)
        case calls.Data(data=data):
            return _ANSWER_ROOM + len(data)
        case calls.Done():
            return 0
        case calls.Number() | calls.Failed():
            return _REFUSAL_ROOM
        case _:
            return _ANSWER_ROOM
