"""What either side says first when a connection is carried: which one it is and by what right, and that it is there."""

from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import DecodeError

from vm_migration.api.v1 import machine_stream_pb2
from vm_migration.api.v1.machine_stream_pb2 import StreamOpened, StreamOpening
from vm_migration.errors import Unauthorised
from vm_migration.link.machine_stream.order import StreamRole

CARRY_SERVICE: Final = "vm_migration.api.v1.MachineStream"
CARRY_METHOD: Final = f"/{CARRY_SERVICE}/Carry"
OPENED: Final = StreamOpened().SerializeToString()
_ROLES: Final = {
    machine_stream_pb2.STREAM_ROLE_MAIN: StreamRole.MAIN,
    machine_stream_pb2.STREAM_ROLE_CHANNEL: StreamRole.CHANNEL,
}
_ON_THE_WIRE: Final = {role: value for value, role in _ROLES.items()}


@dataclass(frozen=True, slots=True)
class Opening:
    """Which connection of which attempt."""

    attempt: str
    ticket: bytes = field(repr=False)
    role: StreamRole
    ordinal: int


def encode_opening(opening: Opening) -> bytes:
    """Return an opening as the first message of its call."""
    return StreamOpening(
        attempt=opening.attempt, ticket=opening.ticket, role=_ON_THE_WIRE[opening.role], ordinal=opening.ordinal
    ).SerializeToString()


def decode_opening(message: bytes) -> Opening:
    """Return what the first message of a call says.

    Raises:
        Unauthorised: It is no opening.
    """
    try:
        said = StreamOpening.FromString(message)
    except DecodeError:
        raise Unauthorised("no-stream", "What came first opens no connection of a machine") from None
    if said.role not in _ROLES:
        raise Unauthorised("no-stream", f"Connection of a role that this version does not know: {said.role}")
    return Opening(said.attempt, said.ticket, _ROLES[said.role], said.ordinal)
