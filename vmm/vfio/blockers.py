"""Why a machine's devices cannot migrate, in the order in which VFIO looks (semantics 6.1, 6.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class BlockerCode(StrEnum):
    """Stable codes; none changes its meaning."""

    MIGRATION_DISABLED = "migration-disabled"
    NO_MIGRATION_SUPPORT = "no-migration-support"
    NO_DIRTY_TRACKING = "no-dirty-tracking"
    NO_P2P = "no-p2p"
    LOGGER_BEHIND_VIOMMU = "logger-behind-viommu"
    LARGE_MEMORY = "large-memory"


@dataclass(frozen=True, slots=True)
class Finding:
    """A blocker or a warning about one device, or about the machine when `device` is empty."""

    code: BlockerCode
    message: str
    device: str = ""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What the rules look at.

    `limit_bytes` is how much RAM the container's dirty bitmap can describe; None where there is no limit.
    """

    name: str
    enable_migration: str
    stop_copy: bool
    p2p: bool
    log_usable: bool
    iommu_dirty_tracking: bool
    container_tracks: bool
    limit_bytes: int | None
    behind_viommu: bool


def bitmap_limit(max_bitmap_bytes: int, page_size: int) -> int:
    """Return how much RAM a dirty bitmap of so many bytes can describe: 8 TiB for type1 at 4 KiB."""
    return max_bitmap_bytes * 8 * page_size


def judge(devices: Sequence[DeviceFacts], ram_bytes: int) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Return all blockers and all warnings of a machine."""
    blockers: list[Finding] = []
    warnings: list[Finding] = []
    for device in devices:
        found, warned = _judge_device(device, ram_bytes)
        blockers.extend(found)
        warnings.extend(warned)
    migratable = [device for device in devices if device.enable_migration != "off" and device.stop_copy]
    if len(migratable) > 1 and not all(device.p2p for device in migratable):
        text = "Multiple VFIO devices migrate only if all of them support P2P"
        blockers.append(Finding(BlockerCode.NO_P2P, text))
    return tuple(blockers), tuple(warnings)


def _judge_device(device: DeviceFacts, ram_bytes: int) -> tuple[list[Finding], list[Finding]]:
    if device.enable_migration == "off":
        text = "Migration is disabled for this device (enable_migration = off)"
        return [Finding(BlockerCode.MIGRATION_DISABLED, text, device.name)], []
    if not device.stop_copy:
        text = "Device's driver does not support migration"
        return [Finding(BlockerCode.NO_MIGRATION_SUPPORT, text, device.name)], []
    if device.log_usable:
        if device.behind_viommu:
            text = "Device tracks dirty pages by its own log, which does not work behind a vIOMMU"
            return [Finding(BlockerCode.LOGGER_BEHIND_VIOMMU, text, device.name)], []
        return [], []
    if device.iommu_dirty_tracking:
        return [], []
    return _judge_untracked(device, ram_bytes)


def _judge_untracked(device: DeviceFacts, ram_bytes: int) -> tuple[list[Finding], list[Finding]]:
    text = "Neither the device nor the host IOMMU tracks dirty pages"
    if device.enable_migration != "on":
        hint = f"{text}; every page it can reach would be sent while the guest stands still"
        return [Finding(BlockerCode.NO_DIRTY_TRACKING, hint, device.name)], []
    if device.container_tracks and device.limit_bytes is not None and ram_bytes > device.limit_bytes:
        large = f"RAM of {ram_bytes} bytes is over the {device.limit_bytes} that the container's dirty bitmap describes"
        return [Finding(BlockerCode.LARGE_MEMORY, large, device.name)], []
    return [], [Finding(BlockerCode.NO_DIRTY_TRACKING, f"{text}; allowed by enable_migration = on", device.name)]
