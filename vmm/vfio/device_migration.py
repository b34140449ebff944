"""Moving all devices of a machine between migration states together (semantics 7.6, 7.8).

::

    tracking   RUNNING ------> PRE_COPY                       devices with pre-copy
    stop       PRE_COPY -----> PRE_COPY_P2P -----> STOP_COPY  all devices pass P2P before any goes on
               RUNNING ------> RUNNING_P2P  -----> STOP_COPY  (the host goes by way of STOP)
    start      STOP_COPY|STOP|RESUMING --> RUNNING_P2P --> RUNNING

A device in a P2P state starts no access of its own, so no device can write to another that has stopped.

A transition that fails is reported, after the device was brought to the state to go on from: RUNNING or STOP, or by
VFIO_DEVICE_RESET where it is in ERROR. A device whose reset fails too is lost, and so is the machine (semantics 7.8).
"""

import contextlib
from collections.abc import Sequence

from vfio_host.interface.numbers import DeviceState, MigrationFlags
from vmm.vfio.device import VfioDevice
from vmm.vfio.host_port import HostCallFailed


def begin_precopy(devices: Sequence[VfioDevice]) -> None:
    """Put the devices that can into PRE_COPY, each with a stream that begins anew; they go on running.

    Raises:
        HostCallFailed: Some devices may be in PRE_COPY; `end_precopy` brings all of them back.
    """
    end_precopy(devices)
    for device in devices:
        if MigrationFlags.PRE_COPY in device.flags and device.state is DeviceState.RUNNING:
            change(device, DeviceState.PRE_COPY, DeviceState.RUNNING)


def stop(devices: Sequence[VfioDevice]) -> None:
    """Stop all devices for saving; nothing writes RAM any more when this returns.

    Devices that cannot migrate stop too: where the machine moves without them, a blocker has said so before.

    Raises:
        HostCallFailed: Some devices may have stopped; `start` brings all of them back.
    """
    _quiesce(devices)
    for device in devices:
        if MigrationFlags.STOP_COPY in device.flags:
            change(device, DeviceState.STOP_COPY, DeviceState.STOP)


def halt(devices: Sequence[VfioDevice]) -> None:
    """Stop all devices because a person paused the machine; a later `stop` or `start` goes on from there.

    Raises:
        HostCallFailed: Some devices may have stopped; `start` brings all of them back.
    """
    _quiesce(devices)
    for device in devices:
        if MigrationFlags.STOP_COPY in device.flags:
            change(device, DeviceState.STOP, DeviceState.STOP)


def start(devices: Sequence[VfioDevice]) -> None:
    """Run all devices: first all to P2P, then all to RUNNING.

    Raises:
        HostCallFailed: A device is in ERROR or did not leave its state.
    """
    for device in devices:
        if MigrationFlags.P2P in device.flags and device.state is not DeviceState.RUNNING:
            change(device, DeviceState.RUNNING_P2P, DeviceState.STOP)
    for device in devices:
        if MigrationFlags.STOP_COPY in device.flags:
            change(device, DeviceState.RUNNING, DeviceState.STOP)


def end_precopy(devices: Sequence[VfioDevice]) -> None:
    """Bring devices that were only in PRE_COPY back to RUNNING."""
    for device in devices:
        if device.flags and device.state in (DeviceState.PRE_COPY, DeviceState.PRE_COPY_P2P):
            change(device, DeviceState.RUNNING, DeviceState.RUNNING)


def _quiesce(devices: Sequence[VfioDevice]) -> None:
    for device in devices:
        if MigrationFlags.P2P in device.flags:
            state = device.state
            if state is DeviceState.PRE_COPY:
                change(device, DeviceState.PRE_COPY_P2P, DeviceState.RUNNING)
            elif state is DeviceState.RUNNING:
                change(device, DeviceState.RUNNING_P2P, DeviceState.RUNNING)


def change(device: VfioDevice, target: DeviceState, recover: DeviceState) -> None:
    """Move a device; where that fails, bring it to the state to go on from, and then tell what failed first.

    Raises:
        HostCallFailed: It is in the state to go on from, or was reset, or is lost.
    """
    try:
        device.set_state(target)
    except HostCallFailed:
        try:
            device.set_state(recover)
        except HostCallFailed:
            with contextlib.suppress(HostCallFailed):
                device.reset()
        raise
