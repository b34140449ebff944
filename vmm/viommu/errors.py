"""What can go wrong beside the guest's own faults, which are recorded in registers and never raised.

::

    ViommuError
    ├── UnsupportedConfiguration   the unit cannot be built so
    ├── ListenerRefused            nobody can follow an address space of this unit (ENOTSUP)
    │   ├── CachingModeRequired    the unit would not hear of new mappings
    │   └── SnoopControlUnsupported the unit forces snooping, which host mappings do not follow
    └── StateRefused               a saved state does not fit this unit; the unit is as it was
"""


class ViommuError(Exception):
    """Any error of the vIOMMU that is not the guest's."""


class UnsupportedConfiguration(ViommuError):
    """No such unit exists."""


class ListenerRefused(ViommuError):
    """The unit cannot serve such a listener (semantics 4.2). It has none then."""


class CachingModeRequired(ListenerRefused):
    """Device assignment needs caching mode (semantics 4.2)."""


class SnoopControlUnsupported(ListenerRefused):
    """Device assignment does not go with snoop control (semantics 4.2)."""


class StateRefused(ViommuError):
    """The bytes are no saved state of such a unit. Nothing was changed."""
