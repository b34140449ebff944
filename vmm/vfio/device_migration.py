"""Moving all devices of a machine between migration states together (semantics 7.6, 7.8).

::

    tracking   RUNNING ------> PRE_COPY                       devices with pre-copy
    stop       PRE_COPY -----> PRE_COPY_P2P -----> STOP_COPY  all devices pass P2P before any goes on
               RUNNING ------> RUNNING_P2P  -----> STOP_COPY  (the host goes by way of STOP)
    start      STOP_COPY|STOP|RESUMING --> RUNNING_P2P --> RUNNING

A device in a P2P state starts no access of its own, so no device can write to another that has stopped.
"""

from collections.abc import Callable, Sequence

from vfio_host.interface.numbers import DeviceState, MigrationFlags
from vmm.vfio.device import VfioDevice


def begin_precopy(devices: Sequence[VfioDevice]) -> None:
    """Put the devices that can into PRE_COPY; they go on running.

    Raises:
        HostCallFailed: Some devices may be in PRE_COPY; `start` brings all of them back.
    """
    for device in devices:
        if MigrationFlags.PRE_COPY in device.flags and device.state is DeviceState.RUNNING:
            device.set_state(DeviceState.PRE_COPY)


def stop(devices: Sequence[VfioDevice]) -> None:
    """Stop all devices for saving; nothing writes RAM any more when this returns.

    Devices that cannot migrate stop too: where the machine moves without them, a blocker has said so before.

    Raises:
        HostCallFailed: Some devices may have stopped; `start` brings all of them back.
    """
    _quiesce(devices)
    for device in devices:
        if MigrationFlags.STOP_COPY in device.flags:
            device.set_state(DeviceState.STOP_COPY)


def halt(devices: Sequence[VfioDevice]) -> None:
    """Stop all devices because a person paused the machine; a later `stop` or `start` goes on from there.

    Raises:
        HostCallFailed: Some devices may have stopped; `start` brings all of them back.
    """
    _quiesce(devices)
    for device in devices:
        if MigrationFlags.STOP_COPY in device.flags:
            device.set_state(DeviceState.STOP)


def start(devices: Sequence[VfioDevice]) -> None:
    """Run all devices: first all to P2P, then all to RUNNING.

    Raises:
        HostCallFailed: A device is in ERROR or did not leave its state.
    """
    for device in devices:
        if MigrationFlags.P2P in device.flags and device.state is not DeviceState.RUNNING:
            device.set_state(DeviceState.RUNNING_P2P)
    for device in devices:
        if MigrationFlags.STOP_COPY in device.flags:
            device.set_state(DeviceState.RUNNING)


def end_precopy(devices: Sequence[VfioDevice]) -> None:
    """Bring devices that were only in PRE_COPY back to RUNNING."""
    for device in devices:
        if device.state in (DeviceState.PRE_COPY, DeviceState.PRE_COPY_P2P):
            device.set_state(DeviceState.RUNNING)


def save(devices: Sequence[VfioDevice]) -> dict[str, bytes]:
    """Return each device's state; all are in STOP_COPY."""
    return {device.name: device.read_state() for device in devices if MigrationFlags.STOP_COPY in device.flags}


def load(devices: Sequence[VfioDevice], states: dict[str, bytes], refuse: Callable[[str], Exception]) -> None:
    """Load each device's state, which leaves it in STOP.

    Raises:
        Exception: What `refuse` makes of the reason, when the states are not those of these devices.
        HostCallFailed: A device refused its state.
    """
    expected = {device.name for device in devices if MigrationFlags.STOP_COPY in device.flags}
    if set(states) != expected:
        raise refuse(f"State holds devices {sorted(states)}, the machine has {sorted(expected)}")
    for device in devices:
        if device.name in states:
            device.set_state(DeviceState.RESUMING)
            device.write_state(states[device.name])
            device.set_state(DeviceState.STOP)


def _quiesce(devices: Sequence[VfioDevice]) -> None:
    for device in devices:
        if MigrationFlags.P2P in device.flags:
            state = device.state
            if state is DeviceState.PRE_COPY:
                device.set_state(DeviceState.PRE_COPY_P2P)
            elif state is DeviceState.RUNNING:
                device.set_state(DeviceState.RUNNING_P2P)
