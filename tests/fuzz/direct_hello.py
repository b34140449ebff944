"""The first bytes of a direct connection (vm_migration.link.direct_hello)."""

from tests.fuzz.target import Target, same
from tests.vm_migration.wire.test_bulk_frame import ATTEMPT
from vm_migration.errors import Unauthorised
from vm_migration.link.direct_hello import Hello, decode_hello, encode_hello


def _read(data: bytes) -> None:
    same(encode_hello(decode_hello(data)), data)


TARGET = Target(
    "direct_hello",
    _read,
    refusals=(Unauthorised,),
    seeds={
        "tells": encode_hello(Hello(ATTEMPT, 3, bytes(range(32)))),
        "silent": encode_hello(Hello(ATTEMPT, 0, bytes(32), tells=False)),
    },
)
