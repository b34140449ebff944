"""A request on the control socket of a machine process (vmm.process.control)."""

import msgspec

from tests.fuzz.target import Target, same
from vmm.process.control import AnyRequest, Attach, ReadDeviceData, WriteDeviceData, encode, request_decoder
from vmm.vfio.device_records import DeviceRecord, RecordKind


def _read(data: bytes) -> None:
    written = encode(request_decoder.decode(data))
    same(encode(request_decoder.decode(written)), written)


_REQUESTS: dict[str, AnyRequest] = {
    "attach": Attach(epoch=3, controller=2),
    "read": ReadDeviceData(budget=1 << 20),
    "write": WriteDeviceData(records=(DeviceRecord("qat0", RecordKind.DATA, memoryview(b"state")),)),
}
TARGET = Target(
    "machine_request",
    _read,
    refusals=(msgspec.DecodeError, UnicodeDecodeError),
    seeds={name: encode(request) for name, request in _REQUESTS.items()},
    factor=64,
)
