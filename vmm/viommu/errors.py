"""What can go wrong beside the guest's own faults, which are recorded in registers and never raised.

::

    ViommuError
    ├── UnsupportedConfiguration   the unit cannot be built so
    ├── CachingModeRequired        a device that needs MAP events sits behind a unit that cannot give them
    └── StateRefused               a saved state does not fit this unit; the unit is as it was
"""


class ViommuError(Exception):
    """Any error of the vIOMMU that is not the guest's."""


class UnsupportedConfiguration(ViommuError):
    """No such unit exists."""


class CachingModeRequired(ViommuError):
    """Device assignment needs caching mode (semantics 4.2)."""


class StateRefused(ViommuError):
    """The bytes are no saved state of such a unit. Nothing was changed."""
