"""A driver's saved state as bytes: msgpack that has one form only, so that what is loaded is saved again as it came."""

from typing import TypeVar

import msgspec

from vmm.guest.device_driver import ProgressRefused

S = TypeVar("S", bound=msgspec.Struct)


def from_canonical(data: bytes, kind: type[S], whose: str) -> S:
    """Return the state of bytes; whether a driver can be in it is for the caller to say.

    Raises:
        ProgressRefused: They are no such state, or not its canonical form.
    """
    try:
        state = msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProgressRefused(f"Not a state of {whose}: {error}") from None
    if msgspec.msgpack.encode(state) != data:
        raise ProgressRefused(f"State of {whose} is not canonical")
    return state
