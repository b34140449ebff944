"""Why a machine cannot be handed to another process on its host, which is no matter of migration (semantics 9.4, 9.5).

A device without any migration support can be updated: it is not stopped, moved or reset. What counts is whether the
kernel keeps its mappings while the process behind them changes, and whether the new process finds it again.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

Mode = Literal["transfer", "exec", "reboot"]
_OF_THIS_PROCESS: Final = re.compile(r"VFIO_FD\d+")
"""How QEMU names a device that it was given as a descriptor only: by a number that means nothing in another process."""


class UpdateBlockerCode(StrEnum):
    """Stable codes; none changes its meaning."""

    NO_VADDR_UPDATE = "no-vaddr-update"
    MAPPING_NOT_BY_FILE = "mapping-not-by-file"
    NO_PROCESS_CHANGE = "no-process-change"
    MEDIATED_DEVICE = "mediated-device"
    NO_DEVICE_ID = "no-device-id"
    NOT_SUSPENDED = "not-suspended"
    DIRTY_TRACKING = "dirty-tracking"
    MEMORY_NOT_IN_A_FILE = "memory-not-in-a-file"
    NO_FILE_BESIDE_MEMORY = "no-file-beside-memory"


@dataclass(frozen=True, slots=True)
class UpdateFinding:
    """A blocker of one device, or of the machine when `device` is empty."""

    code: UpdateBlockerCode
    message: str
    device: str = ""


@dataclass(frozen=True, slots=True)
class UpdateFacts:
    """What the rules look at, of one device and the container that it is in.

    `updates_vaddr` and `unmaps_all` are type1's extensions, `by_file` says that all mappings of the device's iommufd
    are, and `changes_process` that its kernel lets another process have them.
    """

    name: str
    backend: Literal["type1", "iommufd"]
    mediated: bool = False
    updates_vaddr: bool = True
    unmaps_all: bool = True
    by_file: bool = True
    changes_process: bool = True


def has_invariant_name(name: str) -> bool:
    """Tell whether a device's name is the same to every process, so that a new one finds the device by it."""
    return name != "" and _OF_THIS_PROCESS.fullmatch(name) is None


def judge_update(
    devices: Sequence[UpdateFacts],
    mode: Mode,
    *,
    suspended: bool,
    tracking: bool = False,
    keeps_ram: bool = True,
    nothing_beside: str = "",
) -> tuple[UpdateFinding, ...]:
    """Return every blocker of an update in a mode: the machine's own, and of each device the first.

    `suspended` is what the guest is; `tracking` says that dirty pages are tracked, by a process that harvests them;
    `keeps_ram` that RAM is a file with a name, which outlives the process; `nothing_beside` why no file can be written
    beside that one.
    """
    found: list[UpdateFinding | None] = []
    if tracking:
        text = "Dirty pages are tracked, for a migration or a measurement, and the new process would not know which"
        found.append(UpdateFinding(UpdateBlockerCode.DIRTY_TRACKING, text))
    if mode != "reboot":
        found += [_judge_device(device) for device in devices]
    elif devices and not suspended:  # they are opened anew by whoever comes after; without one there are no drivers
        text = "The guest is not suspended: viaduct machine suspend"
        found.append(UpdateFinding(UpdateBlockerCode.NOT_SUSPENDED, text))
    if mode == "reboot" and not keeps_ram:
        text = "RAM is not in a file that outlives the process (memory.backing, memory.path)"
        found.append(UpdateFinding(UpdateBlockerCode.MEMORY_NOT_IN_A_FILE, text))
    elif mode == "reboot" and nothing_beside:
        text = f"Where the guest stands cannot be kept beside RAM: {nothing_beside}"
        found.append(UpdateFinding(UpdateBlockerCode.NO_FILE_BESIDE_MEMORY, text))
    return tuple(finding for finding in found if finding is not None)


def _judge_device(device: UpdateFacts) -> UpdateFinding | None:
    if not has_invariant_name(device.name):
        text = "Device has no name by which another process could find it"
        return UpdateFinding(UpdateBlockerCode.NO_DEVICE_ID, text, device.name)
    return _judge_type1(device) if device.backend == "type1" else _judge_iommufd(device)


def _judge_type1(device: UpdateFacts) -> UpdateFinding | None:
    if device.mediated:
        text = "Mediated device on type1 needs user addresses at all times"
        return UpdateFinding(UpdateBlockerCode.MEDIATED_DEVICE, text, device.name)
    if not (device.updates_vaddr and device.unmaps_all):
        text = "Kernel's type1 cannot update user addresses of mappings"
        return UpdateFinding(UpdateBlockerCode.NO_VADDR_UPDATE, text, device.name)
    return None


def _judge_iommufd(device: UpdateFacts) -> UpdateFinding | None:
    if not device.by_file:
        text = "A mapping of the iommufd is by user address, not by file"
        return UpdateFinding(UpdateBlockerCode.MAPPING_NOT_BY_FILE, text, device.name)
    if not device.changes_process:
        text = "Kernel's iommufd cannot change the process of its mappings"
        return UpdateFinding(UpdateBlockerCode.NO_PROCESS_CHANGE, text, device.name)
    return None
