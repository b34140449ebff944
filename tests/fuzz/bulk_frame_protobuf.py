"""The protobuf twin of a frame (vm_migration.wire.frame_protobuf): protobuf is not canonical, its meaning is."""

from google.protobuf.message import DecodeError

from tests.fuzz import bulk_frame
from tests.fuzz.target import Target, same
from vm_migration.api.v1.bulk_pb2 import BulkFrame
from vm_migration.wire.errors import FrameError
from vm_migration.wire.frame import decode, encode
from vm_migration.wire.frame_protobuf import from_message, to_message


def _read(data: bytes) -> None:
    frame = from_message(BulkFrame.FromString(data))
    same(encode(from_message(to_message(frame))), encode(frame))


TARGET = Target(
    "bulk_frame_protobuf",
    _read,
    refusals=(FrameError, DecodeError),
    seeds={
        name: to_message(decode(seed)).SerializeToString(deterministic=True)
        for name, seed in bulk_frame.TARGET.seeds.items()
    },
    factor=128,
)
