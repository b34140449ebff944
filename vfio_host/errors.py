"""The package's errors.

::

    VfioHostError
    +-- CallRefused            a call's negative return: the errno that the kernel gives
    +-- DmaFault               a device's access that the IOMMU stopped; nothing was read or written
    +-- StateInvalid           bytes that are no device state of this model and version
    +-- ConfigurationInvalid   what the host was started with cannot be had
"""

import errno


class VfioHostError(Exception):
    """The root of the tree."""


class CallRefused(VfioHostError):
    """A call returned an errno; the object is as it was, unless the call's own text says otherwise."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{text} ({errno.errorcode.get(number, number)})")
        self.errno = number


class DmaFault(VfioHostError):
    """The IO page table has no such translation, or not with this permission."""

    def __init__(self, iova: int, *, write: bool) -> None:
        super().__init__(f"DMA {'write' if write else 'read'} at IOVA 0x{iova:x} has no translation that allows it")
        self.iova = iova
        self.write = write


class StateInvalid(VfioHostError):
    """Device state that cannot be loaded; the device keeps what it had."""


class ConfigurationInvalid(VfioHostError):
    """The host cannot be started; nothing was."""
