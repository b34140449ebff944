"""Why a QEMU cannot move, all at once, before anything starts. Pure, over what was gathered.

QEMU's own blocked reasons come first: they are what it refuses by. What the model's rules say of its devices is added
where QEMU does not say it: versions before 8.1 do not look at a vIOMMU, and none says which tracker a device will use.
Of a device's kernel driver nothing can be known here but what QEMU says of it; it is taken to be able to migrate.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from vm_migration.machine.qemu.devices import Device, Parts
from vm_migration.machine.qemu.streaming import LACKING, lacking
from vmm.process.control import Observation
from vmm.vfio.blockers import BlockerCode, DeviceFacts, judge

QEMU_BLOCKED: Final = "qemu-blocked"
DISK_NOT_SHARED: Final = "disk-not-shared"
NOT_COMPARED: Final = "memory-not-compared"
GUEST_TROUBLE: Final = "guest-trouble"
_IOMMUFD_TRACKS_FROM: Final = (9, 1, 0)
"""QEMU's first version that asks iommufd for the IOMMU's dirty bits."""
_MIGRATION_FROM: Final = (8, 1, 0)
"""QEMU's first version in which VFIO migration is no experiment: `enable-migration = auto`."""
_NARROW: Final = 39
_TYPE1_LIMIT: Final = 1 << 43
_REASONS: Final = (
    ("migration is disabled for vfio", BlockerCode.MIGRATION_DISABLED),
    ("dirty tracking limitation", BlockerCode.LARGE_MEMORY),
    ("iommu dirty tracking", BlockerCode.NO_DIRTY_TRACKING),
    ("dirty tracking", BlockerCode.NO_DIRTY_TRACKING),
    ("p2p migration", BlockerCode.NO_P2P),
    ("viommu", BlockerCode.LOGGER_BEHIND_VIOMMU),
    ("vfio", BlockerCode.NO_MIGRATION_SUPPORT),
)
"""Words of QEMU's reasons, the more particular ones first."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What keeps a machine here, and what to know of it."""

    blockers: tuple[Observation, ...]
    warnings: tuple[Observation, ...]


def findings(
    parts: Parts,
    ram_bytes: int,
    *,
    blocked: Collection[str],
    shared_disks: Collection[str],
    ram_trouble: str = "",
    guest_trouble: str = "",
) -> Findings:
    """Judge a machine.

    `shared_disks` are the files that every host has; `ram_trouble` says why RAM cannot be compared, where it cannot,
    and `guest_trouble` why the guest stands still, or sleeps, by itself: a destination is whole with a paused one only.
    """
    own = tuple(_of_reason(reason) for reason in blocked)
    codes = {each.code for each in own}
    judged, warned = judge([_facts(device, parts) for device in parts.vfio], ram_bytes)
    judged = () if parts.version >= _MIGRATION_FROM else judged  # from then on QEMU refuses by these rules itself
    added = [Observation(code=each.code, message=each.message, device=each.device) for each in judged]
    warnings = [Observation(code=each.code, message=each.message, device=each.device) for each in warned]
    warnings += _about_viommus(parts)
    if ram_trouble:
        warnings.append(Observation(code=NOT_COMPARED, message=f"{ram_trouble}; a migration is verified by nothing"))
    trouble = (Observation(code=GUEST_TROUBLE, message=guest_trouble),) if guest_trouble else ()
    missing = lacking(parts.capabilities, incoming=False)
    unable = (Observation(code=LACKING, message=f"QEMU here {missing}"),) if missing else ()
    disks = tuple(_unshared(parts, shared_disks))
    judged_too = tuple(each for each in added if each.code not in codes)
    return Findings((*own, *judged_too, *unable, *disks, *trouble), tuple(warnings))


def _of_reason(reason: str) -> Observation:
    small = reason.lower()
    code = next((code.value for words, code in _REASONS if words in small), QEMU_BLOCKED)
    return Observation(code=code, message=f"QEMU refuses: {reason}")


def _facts(device: Device, parts: Parts) -> DeviceFacts:
    iommufd = bool(device.value("iommufd"))
    tracks = iommufd and parts.version >= _IOMMUFD_TRACKS_FROM
    enabled = _enabled(device, parts)
    logs = not tracks and enabled == "auto" and device.value("x-device-dirty-page-tracking") not in (False, "off")
    behind = bool(parts.viommus) and not parts.bus_bypasses_iommu
    translates = all(one.value("dma-translation") is not False for one in parts.viommus)
    return DeviceFacts(
        name=device.name,
        enable_migration=enabled,
        stop_copy=True,
        p2p=True,
        log_usable=logs,
        iommu_dirty_tracking=tracks,
        container_tracks=True,
        limit_bytes=(1 << 64) - 1 if iommufd else _TYPE1_LIMIT,
        behind_viommu=behind,
        translates=translates,
        max_iova=_max_iova(parts),
        real_tracker=iommufd,
    )


def _enabled(device: Device, parts: Parts) -> str:
    said = device.value("enable-migration", "x-enable-migration")
    if isinstance(said, str):
        return said
    if said is None and parts.version >= _MIGRATION_FROM:
        return "auto"
    return "on" if said else "off"


def _max_iova(parts: Parts) -> int | None:
    bits = next((bits for one in parts.viommus if isinstance(bits := one.value("aw-bits"), int)), None)
    return None if bits is None else (1 << bits) - 1


def _about_viommus(parts: Parts) -> Iterator[Observation]:
    for one in parts.viommus if parts.vfio else ():
        if one.value("dma-translation") is False:
            text = (
                "vIOMMU only remaps interrupts; VFIO sees it all the same, and a device's own log is blocked behind it"
            )
            yield Observation(code="viommu-interrupts-only", message=text, device=one.name)
        elif one.value("aw-bits") == _NARROW:
            text = "vIOMMU has addresses of 39 bits: a device's log has to cover 512 GiB of them, whatever RAM there is"
            yield Observation(code="viommu-39-bits", message=text, device=one.name)


def _unshared(parts: Parts, shared: Collection[str]) -> Iterator[Observation]:
    for disk in parts.disks:
        if disk.file not in shared:
            text = f"Disk {disk.file} is not said to be shared: a destination would not have what is on it"
            yield Observation(code=DISK_NOT_SHARED, message=text, device=disk.name)
