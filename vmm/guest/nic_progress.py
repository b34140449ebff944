"""What moves of the network card's driver: everything beyond guest RAM that it needs to go on."""

from typing import Final

import msgspec

from vmm.guest.canonical_state import from_canonical
from vmm.guest.device_driver import ProgressRefused

_IOVAS: Final = 1 << 57
BUFFERS_PER_SEGMENT: Final = 128
OPEN_SEGMENTS: Final = 8
"""So many are posted at a time: some 36 ms of packets at 50 MiB/s."""


class NicProgress(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """`posted` and `checked` count buffers since the driver was opened; `answered` counts for ever."""

    rings: int | None
    """IOVA of the rings; None while the device is disabled."""
    posted: int = 0
    checked: int = 0
    expected: int = 0
    """Sequence number of the next packet, if none before it was dropped."""
    dropped_seen: int = 0
    """The device's own count of drops, as the last completion told it."""
    answered: int
    dropped: int
    errors: int
    bytes_written: int
    halted: bool
    failed: bool
    segments: tuple[int, ...] = ()
    """IOVAs of the segments that are posted, oldest first."""


def decoded(data: bytes) -> NicProgress:
    """Return the state of bytes.

    Raises:
        ProgressRefused: They are not canonical, or of a driver that cannot be.
    """
    state = from_canonical(data, NicProgress, "the network card's driver")
    counters = (state.checked, state.expected, state.dropped_seen, state.answered, state.dropped, state.errors)
    if min(*counters, state.bytes_written) < 0 or state.checked > state.posted:
        raise ProgressRefused("Counters of the network card's driver contradict each other")
    whole, rest = divmod(state.posted, BUFFERS_PER_SEGMENT)
    count = whole - state.checked // BUFFERS_PER_SEGMENT
    if rest or count != len(state.segments) or count > OPEN_SEGMENTS or (state.posted and state.rings is None):
        raise ProgressRefused("Posted segments of the network card's driver do not match its buffers")
    addresses = [state.rings or 0, *state.segments]
    if not 0 <= min(addresses) <= max(addresses) < _IOVAS:
        raise ProgressRefused("The network card's driver has addresses that no device has")
    return state
