"""Blockers and warnings, in VFIO's order, under both rule sets and with every switch."""

from dataclasses import replace
from itertools import product

import pytest

from vmm.rules import Rules, RuleSet
from vmm.vfio.backend import NO_LIMIT, describable_bytes
from vmm.vfio.blockers import BlockerCode, DeviceFacts, judge

TIB = 1 << 40
V3 = Rules(set=RuleSet.VFIO_VIOMMU_V3)
QAT = DeviceFacts(
    name="qat0",
    enable_migration="auto",
    stop_copy=True,
    p2p=True,
    log_usable=False,
    iommu_dirty_tracking=True,
    container_tracks=True,
    limit_bytes=describable_bytes(NO_LIMIT, 4096),
    behind_viommu=True,
)
TYPE1 = replace(QAT, iommu_dirty_tracking=False, limit_bytes=8 * TIB, real_tracker=False)
LOGGER = replace(QAT, name="nic0", log_usable=True, iommu_dirty_tracking=False, container_tracks=False)


def codes(*devices: DeviceFacts, ram: int = 1 << 30, rules: Rules | None = None) -> tuple[list[str], list[str]]:
    blockers, warnings = judge(devices, ram, rules)
    return [found.code for found in blockers], [found.code for found in warnings]


def expected_behind_viommu(device: DeviceFacts, rules: Rules) -> list[str]:
    """The table of semantics 10, put down case by case."""
    if not device.behind_viommu or not device.log_usable:
        return []
    if not rules.v3:
        return [BlockerCode.LOGGER_BEHIND_VIOMMU]
    if not device.translates:
        return []
    return [] if device.max_iova is not None else [BlockerCode.VIOMMU_NO_ADDRESS_WIDTH]


@pytest.mark.parametrize("rules", [Rules(), V3])
@pytest.mark.parametrize(
    ("logs", "translates", "max_iova", "behind"),
    list(product((False, True), (False, True), (None, (1 << 39) - 1, (1 << 48) - 1), (False, True))),
)
def test_both_rule_sets(*, rules: Rules, logs: bool, translates: bool, max_iova: int | None, behind: bool) -> None:
    device = replace(
        QAT,
        log_usable=logs,
        iommu_dirty_tracking=not logs,
        translates=translates,
        max_iova=max_iova,
        behind_viommu=behind,
    )
    assert codes(device, rules=rules) == (expected_behind_viommu(device, rules), [])


@pytest.mark.parametrize(
    ("rules", "device", "expected"),
    [
        (replace(V3, interrupt_only_viommu_allowed=False), replace(LOGGER, translates=False), []),
        (
            replace(V3, interrupt_only_viommu_allowed=False),
            replace(LOGGER, translates=False, max_iova=None),
            [BlockerCode.VIOMMU_NO_ADDRESS_WIDTH],
        ),
        (replace(V3, address_width_blocker=False), LOGGER, [BlockerCode.LOGGER_BEHIND_VIOMMU]),
        (replace(V3, address_width_blocker=False), replace(LOGGER, max_iova=None), [BlockerCode.LOGGER_BEHIND_VIOMMU]),
        (replace(V3, address_width_blocker=False), replace(LOGGER, translates=False), []),
        (replace(V3, address_width_blocker=False), replace(LOGGER, behind_viommu=False), []),
        (Rules(relaxed_viommu_check=False), QAT, [BlockerCode.VIOMMU_PRESENT]),
        (Rules(relaxed_viommu_check=False), LOGGER, [BlockerCode.VIOMMU_PRESENT]),
        (Rules(relaxed_viommu_check=False), replace(QAT, translates=False), [BlockerCode.VIOMMU_PRESENT]),
        (Rules(relaxed_viommu_check=False), replace(QAT, behind_viommu=False), []),
        (replace(V3, relaxed_viommu_check=False), QAT, []),
        (replace(V3, relaxed_viommu_check=False), replace(QAT, max_iova=None), [BlockerCode.VIOMMU_NO_ADDRESS_WIDTH]),
        (Rules(interrupt_only_viommu_allowed=True), replace(LOGGER, translates=False), ["logger-behind-viommu"]),
    ],
)
def test_switches_at_the_viommu(rules: Rules, device: DeviceFacts, expected: list[str]) -> None:
    assert codes(device, rules=rules)[0] == expected


def test_type1_is_refused_on_auto_and_allowed_with_a_warning_on_demand() -> None:
    assert codes(TYPE1) == ([BlockerCode.NO_DIRTY_TRACKING], [])
    assert codes(replace(TYPE1, enable_migration="on")) == ([], [BlockerCode.NO_DIRTY_TRACKING])


@pytest.mark.parametrize(("page", "limit"), [(4096, 8 * TIB), (16384, 32 * TIB), (65536, 128 * TIB)])
def test_large_memory_is_refused_one_page_past_the_limit(page: int, limit: int) -> None:
    assert describable_bytes(1 << 28, page) == limit
    allowed = replace(TYPE1, enable_migration="on", limit_bytes=limit)
    assert codes(allowed, ram=limit)[0] == []
    assert codes(allowed, ram=limit + 4096) == ([BlockerCode.LARGE_MEMORY], [])
    assert codes(replace(TYPE1, limit_bytes=limit), ram=limit + 4096)[0] == [BlockerCode.NO_DIRTY_TRACKING]
    assert codes(allowed, ram=limit + 4096, rules=Rules(large_memory_blocker=False))[0] == []
    assert codes(replace(allowed, container_tracks=False), ram=limit + 4096)[0] == []


def test_large_memory_is_nothing_to_iommufd_or_a_log() -> None:
    assert describable_bytes(NO_LIMIT, 4096) == (1 << 64) - 32768
    assert codes(replace(QAT, enable_migration="on"), ram=128 * TIB) == ([], [])
    logger = replace(LOGGER, enable_migration="on", limit_bytes=8 * TIB, container_tracks=True, behind_viommu=False)
    assert codes(logger, ram=9 * TIB) == ([], [])


def test_a_device_beside_others_that_are_tracked_is_warned_of() -> None:
    untracked = replace(QAT, iommu_dirty_tracking=False)
    assert codes(untracked)[0] == [BlockerCode.NO_DIRTY_TRACKING]
    warned = codes(replace(untracked, enable_migration="on"))
    assert warned == ([], [BlockerCode.NO_DIRTY_TRACKING, BlockerCode.UNTRACKED_PAGE_TABLE])


def test_the_first_reason_of_a_device_hides_the_others() -> None:
    bad = replace(LOGGER, enable_migration="off", stop_copy=False)
    assert codes(bad)[0] == [BlockerCode.MIGRATION_DISABLED]
    assert codes(replace(bad, enable_migration="auto"))[0] == [BlockerCode.NO_MIGRATION_SUPPORT]
    before = Rules(relaxed_viommu_check=False)
    assert codes(TYPE1, rules=before)[0] == [BlockerCode.NO_DIRTY_TRACKING]


def test_every_device_has_its_reason_and_the_machine_too() -> None:
    no_p2p = replace(QAT, name="qat1", p2p=False)
    off = replace(QAT, name="qat2", enable_migration="off")
    plain = replace(QAT, name="plain0", stop_copy=False)
    assert codes(QAT, no_p2p, off, plain)[0] == [
        BlockerCode.MIGRATION_DISABLED,
        BlockerCode.NO_MIGRATION_SUPPORT,
        BlockerCode.NO_P2P,
    ]
    assert codes(no_p2p, off)[0] == [BlockerCode.MIGRATION_DISABLED]
