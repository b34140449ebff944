"""What a QEMU is made of, as far as it decides whether it can move: VFIO devices, vIOMMU, disks. Read over QMP.

Devices are found in QOM, since query-pci does not say what a device is made of: those that were given an id lie in
/machine/peripheral, the others in /machine/peripheral-anon. A property that this version of QEMU has not is left out.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from vm_migration.machine.qemu.answers import BlockDevice, Capability, Property, Version
from vm_migration.machine.qemu.session import QmpSession

_FOLDERS: Final = ("/machine/peripheral", "/machine/peripheral-anon")
_VFIO: Final = ("child<vfio-pci>", "child<vfio-pci-nohotplug>", "child<vfio-ap>", "child<vfio-ccw>")
_VIOMMUS: Final = ("child<intel-iommu>", "child<amd-iommu>", "child<virtio-iommu-pci>")

Value = str | bool | int | None


@dataclass(frozen=True, slots=True)
class Device:
    """A device and those of its properties that are read; `model` is QEMU's name for what it is."""

    name: str
    model: str
    values: tuple[tuple[str, Value], ...] = ()

    def value(self, *names: str) -> Value:
        """Return the first of its properties that it has, None where it has none of them."""
        known = dict(self.values)
        return next((known[name] for name in names if name in known), None)


@dataclass(frozen=True, slots=True)
class Disk:
    """A medium that is in the machine."""

    name: str
    file: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Parts:
    """What was found."""

    version: tuple[int, int, int]
    machine_type: str
    vfio: tuple[Device, ...] = ()
    viommus: tuple[Device, ...] = ()
    disks: tuple[Disk, ...] = ()
    bus_bypasses_iommu: bool = False
    capabilities: frozenset[str] = frozenset()
    """Names of what its migration can do."""


_READ: Final = frozenset(
    {
        "enable-migration", "x-enable-migration", "iommufd", "x-device-dirty-page-tracking", "aw-bits",
        "dma-translation",
    }
)  # fmt: skip


async def parts(session: QmpSession) -> Parts:
    """Look at everything.

    Raises:
        MachineGone, MachineRefused: QEMU does not answer, or not so.
    """
    version = (await session.ask("query-version", Version)).qemu
    machine = await session.ask("qom-get", str, {"path": "/machine", "property": "type"})
    found = [device for folder in _FOLDERS for device in await _in_folder(session, folder)]
    own = await session.ask("qom-list", tuple[Property, ...], {"path": "/machine"})
    bypass = await _values(session, "/machine", own, {"default-bus-bypass-iommu"})
    return Parts(
        version=(version.major, version.minor, version.micro),
        machine_type=machine.removesuffix("-machine"),
        vfio=tuple(device for device in found if f"child<{device.model}>" in _VFIO),
        viommus=tuple(device for device in found if f"child<{device.model}>" in _VIOMMUS),
        disks=await _disks(session),
        bus_bypasses_iommu=("default-bus-bypass-iommu", True) in bypass,
        capabilities=await migration_capabilities(session),
    )


async def migration_capabilities(session: QmpSession) -> frozenset[str]:
    """Return what its migration can do; raises as `parts`."""
    found = await session.ask("query-migrate-capabilities", tuple[Capability, ...])
    return frozenset(each.capability for each in found)


async def _in_folder(session: QmpSession, folder: str) -> list[Device]:
    found = []
    for child in await session.ask("qom-list", tuple[Property, ...], {"path": folder}):
        if child.type not in (*_VFIO, *_VIOMMUS):
            continue
        path = f"{folder}/{child.name}"
        offered = await session.ask("qom-list", tuple[Property, ...], {"path": path})
        values = await _values(session, path, offered, _READ)
        found.append(Device(child.name, child.type.removeprefix("child<").removesuffix(">"), values))
    return found


async def _values(
    session: QmpSession, path: str, offered: tuple[Property, ...], wanted: Collection[str]
) -> tuple[tuple[str, Value], ...]:
    """Return the properties of an object that are wanted, and that it has."""
    found = []
    for each in offered:
        if each.name in wanted:
            value = await session.ask("qom-get", str | bool | int | None, {"path": path, "property": each.name})  # type: ignore[arg-type]  # a union is a kind to msgspec, and no class to mypy
            found.append((each.name, value))
    return tuple(found)


async def _disks(session: QmpSession) -> tuple[Disk, ...]:
    blocks = await session.ask("query-block", tuple[BlockDevice, ...])
    return tuple(
        Disk(block.device or block.qdev or block.inserted.node_name, block.inserted.image.filename, block.inserted.ro)
        for block in blocks
        if block.inserted is not None
    )
