"""A guest's saved state (vmm.guest): vCPUs, drivers and owners of devices, as a guest of the same kind loads it."""

from tests.fuzz.target import Broken, Target, same
from tests.vmm.guest.translated_guest import World
from vmm.guest.guest import GuestStateRefused
from vmm.guest.material import Material

_MATERIAL = Material(b"machine code " * 512, b"some text " * 512, ("fuzz",), "")
_guest = World().boot(_MATERIAL).guest
_SAVED = _guest.save()


def _running() -> bytes:
    world = World().boot(_MATERIAL)
    world.run_until_busy()
    return world.guest.save()


def _read(data: bytes) -> None:
    try:
        _guest.load(data)
    except GuestStateRefused:
        if _guest.save() != _SAVED:
            raise Broken("A state that was refused left something behind") from None
        raise
    try:
        same(_guest.save(), data)
    finally:
        _guest.load(_SAVED)


TARGET = Target(
    "guest_state", _read, refusals=(GuestStateRefused,), seeds={"booted": _SAVED, "busy": _running()}, factor=256
)
