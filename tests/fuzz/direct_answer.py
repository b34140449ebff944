"""What a destination writes on a direct stream (vm_migration.link.direct_answer), up to where it closes it."""

from tests.fuzz import acknowledgement
from tests.fuzz.target import Target
from vm_migration.errors import MigrationError, Refused
from vm_migration.link.direct_answer import encode_refusal, read_answer
from vm_migration.link.direct_wire import DirectWire
from vm_migration.wire.ack import decode_ack
from vm_migration.wire.errors import FrameError


class _Written(DirectWire):
    """A connection on which all of it has come."""

    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)

    def read_exactly(self, into: memoryview, deadline: float | None = None) -> bool:
        del deadline
        if not self._left:
            return False
        if len(self._left) < len(into):
            raise ConnectionResetError("Closed in the middle of a message")
        into[:] = self._left[: len(into)]
        self._left = self._left[len(into) :]
        return True


def _read(data: bytes) -> None:
    wire = _Written(data)
    try:
        while (answer := read_answer(wire)) is not None:
            decode_ack(answer)
    except MigrationError as error:
        if error.code == "bad-answer":
            raise  # else it is what the peer had to say


_ANSWER = acknowledgement.TARGET.seeds["barrier"]
TARGET = Target(
    "direct_answer",
    _read,
    refusals=(MigrationError, OSError, FrameError),
    seeds={
        "answers": _ANSWER * 3,
        "refusal": _ANSWER + encode_refusal(Refused("no-room", "No memory is left", "Move a machine away")),
    },
    declared=lambda _: 1 << 16,  # a refusal says in two bytes how long it is
)
