import pytest

from vmm.vfio.dirty_tracker import TrackedDevice, Tracker, is_exact, tracker

LOGGER, PLAIN = TrackedDevice(has_log=True), TrackedDevice(has_log=False)
DISABLED = TrackedDevice(has_log=True, log_disabled=True)


@pytest.mark.parametrize(
    ("devices", "container_tracks", "type1", "expected"),
    [
        ([LOGGER], True, False, Tracker.DEVICE_LOG),
        ([LOGGER, LOGGER], False, True, Tracker.DEVICE_LOG),
        ([LOGGER, PLAIN], True, False, Tracker.IOMMU),
        ([DISABLED], True, True, Tracker.PERPETUAL),
        ([PLAIN], True, False, Tracker.IOMMU),
        ([PLAIN], True, True, Tracker.PERPETUAL),
        ([PLAIN], False, False, Tracker.NONE),
        ([], False, False, Tracker.NONE),
    ],
)
def test_decision_table(
    devices: list[TrackedDevice], *, container_tracks: bool, type1: bool, expected: Tracker
) -> None:
    assert tracker(devices, container_tracks=container_tracks, type1=type1) is expected


def test_only_real_tracking_converges() -> None:
    assert [is_exact(kind) for kind in (Tracker.DEVICE_LOG, Tracker.IOMMU, Tracker.PERPETUAL, Tracker.NONE)] == [
        True,
        True,
        False,
        False,
    ]
