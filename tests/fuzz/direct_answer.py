"""What a destination writes on a direct stream (vm_migration.link.direct_answer), up to where it closes it."""

from tests.fakes.written_wire import WrittenWire
from tests.fuzz import acknowledgement
from tests.fuzz.target import Target
from vm_migration.errors import MigrationError, Refused
from vm_migration.link.direct_answer import encode_refusal, read_answer
from vm_migration.wire.ack import decode_ack
from vm_migration.wire.errors import FrameError


def _read(data: bytes) -> None:
    wire = WrittenWire(data)
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
