from dataclasses import replace

from vmm.vfio.blockers import BlockerCode, DeviceFacts, bitmap_limit, judge

TIB = 1 << 40
QAT = DeviceFacts(
    name="qat0",
    enable_migration="auto",
    stop_copy=True,
    p2p=True,
    log_usable=False,
    iommu_dirty_tracking=True,
    container_tracks=True,
    limit_bytes=None,
    behind_viommu=True,
)
TYPE1 = replace(QAT, iommu_dirty_tracking=False, limit_bytes=8 * TIB)


def codes(*devices: DeviceFacts, ram: int = 1 << 30) -> tuple[list[str], list[str]]:
    blockers, warnings = judge(devices, ram)
    return [found.code for found in blockers], [found.code for found in warnings]


def test_iommu_tracking_behind_a_viommu_migrates() -> None:
    assert codes(QAT) == ([], [])


def test_type1_is_refused_on_auto_and_allowed_with_a_warning_on_demand() -> None:
    assert codes(TYPE1) == ([BlockerCode.NO_DIRTY_TRACKING], [])
    assert codes(replace(TYPE1, enable_migration="on")) == ([], [BlockerCode.NO_DIRTY_TRACKING])


def test_large_memory_is_refused_one_page_past_the_limit() -> None:
    assert bitmap_limit(1 << 28, 4096) == 8 * TIB
    allowed = replace(TYPE1, enable_migration="on")
    assert codes(allowed, ram=8 * TIB)[0] == []
    assert codes(allowed, ram=8 * TIB + 4096)[0] == [BlockerCode.LARGE_MEMORY]
    assert codes(TYPE1, ram=8 * TIB + 4096)[0] == [BlockerCode.NO_DIRTY_TRACKING]


def test_a_logger_is_refused_behind_a_viommu_only() -> None:
    logger = replace(QAT, log_usable=True)
    assert codes(logger)[0] == [BlockerCode.LOGGER_BEHIND_VIOMMU]
    assert codes(replace(logger, behind_viommu=False))[0] == []


def test_every_reason_comes_at_once() -> None:
    no_p2p = replace(QAT, name="qat1", p2p=False)
    off = replace(QAT, name="qat2", enable_migration="off")
    plain = replace(QAT, name="plain0", stop_copy=False)
    assert codes(QAT, no_p2p, off, plain)[0] == [
        BlockerCode.MIGRATION_DISABLED,
        BlockerCode.NO_MIGRATION_SUPPORT,
        BlockerCode.NO_P2P,
    ]
