"""The vIOMMU's saved state (vmm.viommu.state), as a unit of the same kind loads it."""

from tests.fuzz.target import Broken, Target, same
from tests.vmm.viommu.bare_unit import BareUnit
from vmm.viommu.errors import StateRefused
from vmm.viommu.state import UnitState

_unit = BareUnit().unit
_FRESH = _unit.save()


def _enabled() -> bytes:
    bare = BareUnit()
    bare.enable()
    return bare.unit.save()


def _read(data: bytes) -> None:
    same(UnitState.decode(data).encode(), data)
    _unit.load(_FRESH)
    try:
        _unit.load(data)
    except StateRefused:
        if _unit.save() != _FRESH:
            raise Broken("A state that was refused left something behind") from None
        raise
    same(_unit.save(), data)


TARGET = Target(
    "viommu_state", _read, refusals=(StateRefused,), seeds={"fresh": _FRESH, "enabled": _enabled()}, factor=256
)
