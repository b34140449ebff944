"""The DMA logs of a container's devices, switched together (semantics 2.1, 2.6)."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from vfio_host.interface.calls import DmaLoggingStart, DmaLoggingStop, GetFeature
from vfio_host.interface.numbers import Feature
from vmm.vfio.host_port import Descriptor, HostCallFailed


@dataclass(frozen=True, slots=True)
class ContainerDevice:
    """A device of a container: what dirty tracking needs to know of it.

    `migratable` says that it has a migration object: without one in every device, a container is not synchronised.
    """

    name: str
    descriptor: Descriptor
    has_log: bool
    migratable: bool


def has_dma_log(descriptor: Descriptor) -> bool:
    """PROBE for DMA_LOGGING_START: whether the device has a log."""
    try:
        descriptor.call(GetFeature(feature=Feature.DMA_LOGGING_START, probe=True))
    except HostCallFailed:
        return False
    return True


def start_logs(devices: Sequence[ContainerDevice], page_size: int, ranges: tuple[tuple[int, int], ...]) -> None:
    """Start the log of every device, or of none.

    Raises:
        HostCallFailed: No device logs.
    """
    call = DmaLoggingStart(page_size=page_size, ranges=ranges)
    for index, device in enumerate(devices):
        try:
            device.descriptor.call(call)
        except HostCallFailed as error:
            for started in devices[:index]:
                with contextlib.suppress(HostCallFailed):  # why the start failed is what is told
                    started.descriptor.call(DmaLoggingStop())
            text = f"{device.name}: Failed to start DMA logging: {os.strerror(error.errno)}"
            raise HostCallFailed(call, error.errno, text) from error


def stop_logs(devices: Sequence[ContainerDevice]) -> tuple[str, ...]:
    """Stop every device's log; a failure is only told."""
    failures = []
    for device in devices:
        try:
            device.descriptor.call(DmaLoggingStop())
        except HostCallFailed as error:
            failures.append(f"{device.name}: Failed to stop DMA logging: {os.strerror(error.errno)}")
    return tuple(failures)
