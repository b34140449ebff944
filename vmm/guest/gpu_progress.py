"""What moves of the graphics processor's driver: everything beyond guest RAM that it needs to go on."""

from typing import Final

import msgspec

from vmm.guest.canonical_state import from_canonical
from vmm.guest.device_driver import ProgressRefused
from vmm.guest.gpu_jobs import JOBS_PER_SLAB

_IOVAS: Final = 1 << 57
_TILES: Final = 1 << 32
OPEN_SLABS: Final = 2
"""So many are open at a time, so that the device has work while one is checked."""


class GpuProgress(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """`submitted` and `checked` count jobs since the driver was opened; `answered` counts for ever."""

    rings: int | None
    """IOVA of the rings; None while the device is disabled."""
    tiles: int
    """Of local memory, as the device said when it was opened; 0 while it is disabled."""
    submitted: int
    checked: int
    answered: int
    errors: int
    bytes_written: int
    halted: bool
    failed: bool
    slabs: tuple[tuple[int, int], ...]
    """IOVAs of output and inputs of the slabs that are open, oldest first."""


def decoded(data: bytes) -> GpuProgress:
    """Return the state of bytes.

    Raises:
        ProgressRefused: They are not canonical, or of a driver that cannot be.
    """
    state = from_canonical(data, GpuProgress, "the graphics processor's driver")
    if min(state.checked, state.answered, state.errors, state.bytes_written) < 0 or state.checked > state.submitted:
        raise ProgressRefused("Counters of the graphics processor's driver contradict each other")
    count = -(-state.submitted // JOBS_PER_SLAB) - state.checked // JOBS_PER_SLAB
    if count != len(state.slabs) or count > OPEN_SLABS or (state.rings is None) != (state.tiles == 0):
        raise ProgressRefused("Open slabs of the graphics processor's driver do not match its jobs in flight")
    addresses = [state.rings or 0, *(iova for slab in state.slabs for iova in slab)]
    if not 0 <= min(addresses) <= max(addresses) < _IOVAS or not 0 <= state.tiles < _TILES:
        raise ProgressRefused("The graphics processor's driver has addresses that no device has")
    if state.submitted and state.rings is None:
        raise ProgressRefused("The graphics processor's driver has jobs on a device that it has not opened")
    return state
