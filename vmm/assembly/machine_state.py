"""A machine's saved state: everything that is neither RAM nor the devices' own.

The format is canonical and versioned: decode then encode gives the same bytes. Devices' state travels before it, as
records (vmm.vfio.device_records); what those came to is in here, so that a machine knows whether it has them all. The
devices take it over after the vIOMMU, into address spaces that it has rebuilt (semantics 4.16, 7.7).
"""

from typing import Final, Literal

import msgspec

from vmm.vfio.device_records import DeviceTotal

STATE_FORMAT: Final = 2


class InvalidState(Exception):
    """A state is not one that this machine can load. Nothing of it was loaded."""


class Origin(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What RAM started from, wherever the machine is by now."""

    kind: Literal["image", "mixture"]
    files: tuple[str, ...]
    sha256: str


class MachineState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The parts, each in its own owner's format."""

    version: int
    origin: Origin
    viommu: bytes
    devices: DeviceTotal
    """What the records of all devices came to."""
    guest: bytes


class StandingState(msgspec.Struct, frozen=True):
    """The same of a machine whose devices stay where they are."""

    origin: Origin
    viommu: bytes
    guest: bytes


_decoder: Final = msgspec.msgpack.Decoder(MachineState)


def encode(state: MachineState) -> bytes:
    """Return the bytes of a state."""
    return msgspec.msgpack.encode(state)


def decode(data: bytes) -> MachineState:
    """Return the state of bytes.

    Raises:
        InvalidState: They are not the canonical form of a state of this version.
    """
    try:
        state = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidState(f"Machine state cannot be read: {error}") from error
    if state.version != STATE_FORMAT:
        raise InvalidState(f"Machine state has format {state.version}; this version reads {STATE_FORMAT}")
    if encode(state) != data:
        raise InvalidState("Machine state is not in its canonical form")
    return state
