"""What moves of the accelerator's driver: everything beyond guest RAM that it needs to go on."""

import msgspec

from vmm.guest.canonical_state import from_canonical
from vmm.guest.device_driver import ProgressRefused
from vmm.guest.qat_jobs import JOBS_PER_SLAB

OPEN_SLABS = 2
"""So many are open at a time, so that the device has work while one is checked."""


class SlabState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An open slab: its number, its IOVA, and those of its inputs with their length in whole pages."""

    number: int
    output: int
    inputs: tuple[tuple[int, int], ...]
    taken_away: bool = False
    """The driver misbehaves: the output is unmapped already, while jobs on it may be in flight."""


class QatState(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, kw_only=True):
    """Jobs are counted from the beginning of time; `first` is the one at index 0 of the present rings."""

    rings: int | None
    """IOVA of the rings; None while the device is disabled."""
    first: int
    submitted: int
    answered: int
    errors: int
    own_errors: int
    bytes_written: int
    halted: bool
    failed: bool
    slabs: tuple[SlabState, ...]


def decoded(data: bytes) -> QatState:
    """Return the state of bytes.

    Raises:
        ProgressRefused: They are not canonical, or of a driver that cannot be.
    """
    state = from_canonical(data, QatState, "the accelerator's driver")
    if not 0 <= state.first <= state.answered <= state.submitted or min(state.errors, state.own_errors) < 0:
        raise ProgressRefused("Counters of the accelerator's driver contradict each other")
    numbers = [slab.number for slab in state.slabs]
    worked_on = range(state.answered // JOBS_PER_SLAB, -(-state.submitted // JOBS_PER_SLAB))
    right = numbers == list(worked_on[: OPEN_SLABS + 1]) or (not numbers and state.answered == state.submitted)
    if not right or len(numbers) > OPEN_SLABS or (numbers and state.rings is None):
        raise ProgressRefused("Open slabs of the accelerator's driver do not match its jobs in flight")
    return state
