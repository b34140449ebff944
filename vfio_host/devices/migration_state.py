"""The VFIO device migration state machine: which state comes next on the way to a target.

::

                     RESUMING <---> STOP <---> STOP_COPY <-----------+-----------+
                                     |                               |           |
         (no P2P: RUNNING <-> STOP)  v                               |           |
                       RUNNING <-> RUNNING_P2P <---> PRE_COPY_P2P ---+           |
                          '---------> PRE_COPY <-------'     (no P2P: PRE_COPY --+)

The kernel's table gives the first step from any state towards any target; a step into a state that the device's
flags do not support is taken over it, towards the same target (semantics 7.1 to 7.3). ERROR is never a target, and
only a reset leads out of it. Everything here is pure.
"""

import errno
from typing import Final

from vfio_host.errors import CallRefused
from vfio_host.interface.numbers import DeviceState, MigrationFlags

_STOP: Final = DeviceState.STOP
_RUN: Final = DeviceState.RUNNING
_SAVE: Final = DeviceState.STOP_COPY
_LOAD: Final = DeviceState.RESUMING
_P2P: Final = DeviceState.RUNNING_P2P
_PRE: Final = DeviceState.PRE_COPY
_PRE_P2P: Final = DeviceState.PRE_COPY_P2P
_BAD: Final = DeviceState.ERROR

TARGETS: Final = (_STOP, _RUN, _SAVE, _LOAD, _P2P, _PRE, _PRE_P2P)
NEXT: Final[dict[DeviceState, tuple[DeviceState, ...]]] = {
    # to:     STOP   RUNNING STOP_COPY RESUMING RUN_P2P PRE_COPY PRE_COPY_P2P
    _STOP: (_STOP, _P2P, _SAVE, _LOAD, _P2P, _P2P, _P2P),
    _RUN: (_P2P, _RUN, _P2P, _P2P, _P2P, _PRE, _P2P),
    _PRE: (_RUN, _RUN, _PRE_P2P, _RUN, _RUN, _PRE, _PRE_P2P),
    _PRE_P2P: (_P2P, _P2P, _SAVE, _P2P, _P2P, _PRE, _PRE_P2P),
    _SAVE: (_STOP, _STOP, _SAVE, _STOP, _STOP, _BAD, _BAD),
    _LOAD: (_STOP, _STOP, _STOP, _LOAD, _STOP, _STOP, _STOP),
    _P2P: (_STOP, _RUN, _STOP, _STOP, _P2P, _RUN, _PRE_P2P),
}
"""Semantics 7.3, row by row."""

_ALWAYS: Final = MigrationFlags.STOP_COPY
_NEEDS: Final = {
    _STOP: _ALWAYS,
    _RUN: _ALWAYS,
    _SAVE: _ALWAYS,
    _LOAD: _ALWAYS,
    _P2P: _ALWAYS | MigrationFlags.P2P,
    _PRE: _ALWAYS | MigrationFlags.PRE_COPY,
    _PRE_P2P: _ALWAYS | MigrationFlags.P2P | MigrationFlags.PRE_COPY,
}


def supported(state: DeviceState, flags: MigrationFlags) -> bool:
    """Tell whether a device with these flags can be in a state by being set to it; ERROR never."""
    needed = _NEEDS.get(state)
    return needed is not None and needed & flags == needed


def next_state(current: DeviceState, target: DeviceState, flags: MigrationFlags) -> DeviceState:
    """Return the first state on the way from one to the other; the target itself when it is there.

    Raises:
        CallRefused: EINVAL when the device cannot be in the target, or no way is allowed. The state stays.
    """
    if supported(current, flags) and supported(target, flags):
        column = TARGETS.index(target)
        step = NEXT[current][column]
        while step != _BAD and not supported(step, flags):
            step = NEXT[step][column]
        if step != _BAD:
            return step
    raise CallRefused(errno.EINVAL, f"Device in {current.name} cannot be set to {target.name}")


def path(current: DeviceState, target: DeviceState, flags: MigrationFlags) -> tuple[DeviceState, ...]:
    """Return every state from one to the other, both included.

    Raises:
        CallRefused: EINVAL as `next_state`; no state of a refused path was entered.
    """
    states = [current]
    while states[-1] != target:
        states.append(next_state(states[-1], target, flags))
    if len(states) == 1:
        next_state(current, target, flags)
    return tuple(states)
