"""What the VT-d driver can fail with.

::

    VtdDriverError
    ├── UnsupportedUnit        the unit lacks what the driver needs
    ├── InvalidationFailed     the unit stopped at a descriptor
    ├── NotMapped              an unmap names what is not mapped
    └── DriverStateRefused     bytes that are no saved state of this driver; nothing was changed

A map for which no table page or IOVA is left fails with `vmm.guest.dma.MapFailed`.
"""


class VtdDriverError(Exception):
    """Any error of the driver."""


class UnsupportedUnit(VtdDriverError):
    """The unit cannot do what this driver was made for."""


class InvalidationFailed(VtdDriverError):
    """The invalidation queue stopped in error."""


class NotMapped(VtdDriverError):
    """No such mapping."""


class DriverStateRefused(VtdDriverError):
    """The bytes do not fit this driver."""
