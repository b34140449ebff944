"""Why a machine's devices cannot migrate, in the order in which VFIO looks (semantics 6.1 to 6.4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vmm.rules import Rules


class BlockerCode(StrEnum):
    """Stable codes; none changes its meaning."""

    MIGRATION_DISABLED = "migration-disabled"
    NO_MIGRATION_SUPPORT = "no-migration-support"
    NO_DIRTY_TRACKING = "no-dirty-tracking"
    NO_P2P = "no-p2p"
    LOGGER_BEHIND_VIOMMU = "logger-behind-viommu"
    LARGE_MEMORY = "large-memory"
    VIOMMU_PRESENT = "viommu-present"
    VIOMMU_NO_ADDRESS_WIDTH = "viommu-no-address-width"
    UNTRACKED_PAGE_TABLE = "untracked-page-table"


@dataclass(frozen=True, slots=True)
class Finding:
    """A blocker or a warning about one device, or about the machine when `device` is empty."""

    code: BlockerCode
    message: str
    device: str = ""


Judged = tuple[tuple[Finding, ...], tuple[Finding, ...]]
"""Blockers and warnings."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What the rules look at.

    `log_usable` and `iommu_dirty_tracking` are the device's own; `container_tracks` says that its container offers a
    tracker, of whatever worth, and `limit_bytes` how much RAM that tracker's bitmap can describe. `behind_viommu` says
    that the device's address space is not RAM's own; `translates` and `max_iova` are what that vIOMMU tells of itself.
    """

    name: str
    enable_migration: str
    stop_copy: bool
    p2p: bool
    log_usable: bool
    iommu_dirty_tracking: bool
    container_tracks: bool
    limit_bytes: int
    behind_viommu: bool
    translates: bool = True
    max_iova: int | None = (1 << 48) - 1
    real_tracker: bool = True
    """The container's tracker, where it offers one, looks at page tables: iommufd's."""


_UNTRACKED: Final = "Neither the device nor the host IOMMU tracks dirty pages"


def judge(devices: Sequence[DeviceFacts], ram_bytes: int, rules: Rules | None = None) -> Judged:
    """Return all blockers and all warnings of a machine; of each device the first blocker."""
    judged = [_judge_device(device, ram_bytes, rules or Rules()) for device in devices]
    blockers = [finding for found, _ in judged for finding in found]
    migratable = [device for device in devices if device.enable_migration != "off" and device.stop_copy]
    if len(migratable) > 1 and not all(device.p2p for device in migratable):
        text = "Multiple VFIO devices migrate only if all of them support P2P"
        blockers.append(Finding(BlockerCode.NO_P2P, text))
    return tuple(blockers), tuple(finding for _, warned in judged for finding in warned)


def _judge_device(device: DeviceFacts, ram_bytes: int, rules: Rules) -> Judged:
    if device.enable_migration == "off":
        return _blocked(device, BlockerCode.MIGRATION_DISABLED, "Migration is disabled (enable_migration = off)")
    if not device.stop_copy:
        return _blocked(device, BlockerCode.NO_MIGRATION_SUPPORT, "Device's driver does not support migration")
    warnings: tuple[Finding, ...] = ()
    if not device.log_usable and not device.iommu_dirty_tracking:
        blockers, warnings = _judge_untracked(device, ram_bytes, rules)
        if blockers:
            return blockers, ()
    return _judge_viommu(device, rules), warnings


def _judge_untracked(device: DeviceFacts, ram_bytes: int, rules: Rules) -> Judged:
    if device.enable_migration != "on":
        text = f"{_UNTRACKED}; every page it can reach would be sent while the guest stands still"
        return _blocked(device, BlockerCode.NO_DIRTY_TRACKING, text)
    if rules.large_memory_blocker and device.container_tracks and ram_bytes > device.limit_bytes:
        text = f"RAM of {ram_bytes} bytes is over the {device.limit_bytes} that the container's dirty bitmap describes"
        return _blocked(device, BlockerCode.LARGE_MEMORY, text)
    text = f"{_UNTRACKED}; allowed by enable_migration = on"
    warnings = [Finding(BlockerCode.NO_DIRTY_TRACKING, text, device.name)]
    if device.container_tracks and device.real_tracker:
        text = "Host IOMMU tracks for others of its container but not for this device: what it writes is not seen"
        warnings.append(Finding(BlockerCode.UNTRACKED_PAGE_TABLE, text, device.name))
    return (), tuple(warnings)


def _judge_viommu(device: DeviceFacts, rules: Rules) -> tuple[Finding, ...]:
    """Judge a device behind a vIOMMU: one that logs, or any before [0] patch 9."""
    if not _viommu_preset(device, rules) or (rules.relaxed_viommu_check and not device.log_usable):
        return ()
    if rules.v3 and rules.address_width_blocker:
        if device.max_iova is not None:
            return ()
        text = "vIOMMU reports no address width, so nobody knows which addresses the device's log must cover"
        return (Finding(BlockerCode.VIOMMU_NO_ADDRESS_WIDTH, text, device.name),)
    if rules.relaxed_viommu_check:
        text = "Device tracks dirty pages by its own log, which does not work behind a vIOMMU"
        return (Finding(BlockerCode.LOGGER_BEHIND_VIOMMU, text, device.name),)
    return (Finding(BlockerCode.VIOMMU_PRESENT, "Migration is not supported with a vIOMMU", device.name),)


def _viommu_preset(device: DeviceFacts, rules: Rules) -> bool:
    """Tell whether VFIO sees a vIOMMU before the device; [3] patch 8 overlooks one that only remaps interrupts."""
    if rules.v3 and rules.interrupt_only_viommu_allowed:
        return device.behind_viommu and device.translates
    return device.behind_viommu


def _blocked(device: DeviceFacts, code: BlockerCode, text: str) -> Judged:
    return (Finding(code, text, device.name),), ()
