"""What the guest's driver of each model of device wants of memory: known without the drivers, to judge what fits."""

from collections.abc import Mapping, Sequence
from typing import Final

from vmm.guest.layout import CORPUS_SIZE, RINGS_SIZE, SLAB_SIZE, AreaNeeds

CORPUS_BYTES: Final[Mapping[str, int]] = {"qat": CORPUS_SIZE, "nic": 0, "gpu": SLAB_SIZE, "plain": CORPUS_SIZE}
"""What a driver lays out once for its device to work on, by the model of the device."""


def needs_of(devices: Sequence[tuple[str, int]]) -> tuple[AreaNeeds, ...]:
    """Return what the drivers of devices (model, rate) want of memory, as `layout.plan` takes it.

    Of whatever model, a driver has slabs for one second; the rate is in bytes per second that the device writes.
    """
    return tuple(AreaNeeds(RINGS_SIZE, CORPUS_BYTES[model], rate // SLAB_SIZE) for model, rate in devices)
