"""Semantics 14, P1, P2, P6 and P7: no program of a guest loses a write, whoever tracks; each fix is needed for that."""

from typing import Final

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.properties.guest_programs import PAGES, Run, Step, assembled
from vmm.assembly.tracking_reason import TrackingReason
from vmm.memory.sections import sections

V3: Final[dict[str, object]] = {"set": "vfio-viommu-v3"}
IOMMUFD: Final[dict[str, object]] = {}
TYPE1: Final[dict[str, object]] = {"backend": "type1", "enable_migration": "on"}
LOGGER: Final[dict[str, object]] = {"model": "nic"}
TRACKERS: Final[dict[str, tuple[dict[str, object], dict[str, object]]]] = {
    "iommu": (IOMMUFD, {}),
    "perpetual": (TYPE1, {}),
    "iommufd-none": ({"host_iommu_dirty_tracking": False}, {}),
    "type1-none": (TYPE1, {"type1_dirty_pages_supported": False}),
    "log-on-iommufd": (LOGGER, V3),
    "log-on-type1": ({**LOGGER, "backend": "type1"}, V3),
}
steps = st.tuples(
    st.sampled_from(
        ["map", "map", "unmap", "dma", "dma", "dma", "cpu", "harvest", "identity", "paging", "paging", "blocked"]
    ),
    st.integers(0, 7),
    st.integers(1, 9),
)
programs = st.lists(steps, max_size=25)


@pytest.mark.parametrize("mode", ["scalable", "legacy"])
@pytest.mark.parametrize("tracker", TRACKERS)
@settings(max_examples=30)
@given(program=programs, reason=st.sampled_from(TrackingReason))
def test_no_program_loses_a_write_or_leaves_a_mapping(
    tracker: str, mode: str, program: list[Step], reason: TrackingReason
) -> None:
    device, rules = TRACKERS[tracker]
    with assembled(device, mode=mode, rules=rules, reason=reason) as run:
        for what, one, other in [*program, ("harvest", 0, 0)]:
            if what == "harvest":
                harvested, lost = run.harvest()
                assert harvested.failure is None
                assert lost == set()
            else:
                run.step(what, one, other)
            assert run.stale() == set()


@pytest.mark.parametrize("switch", ["query_before_unmap", "unmap_by_mapping", "track_region_del"])
def test_the_property_above_would_find_a_lost_write(switch: str) -> None:
    @settings(max_examples=400, derandomize=True, database=None, phases=[Phase.generate], print_blob=False)
    @given(program=programs)
    def never_loses(program: list[Step]) -> None:
        with assembled(IOMMUFD, rules={switch: False}) as run:
            for step in program:
                run.step(*step)
            assert run.harvest()[1] == set()

    with pytest.raises(AssertionError):
        never_loses()


@settings(max_examples=40)
@given(program=programs, failing=st.integers(0, 20), device=st.sampled_from([IOMMUFD, LOGGER]))
def test_whatever_query_fails_no_mapping_is_left(program: list[Step], failing: int, device: dict[str, object]) -> None:
    with assembled(device, rules=V3) as run:
        for number, (what, one, other) in enumerate(program):
            if number == failing:
                run.host.fail_next("query")
            if what == "harvest":
                run.harvest()
            else:
                run.step(what, one, other)
            assert run.stale() == set()


def played(run: Run, *program: Step | str) -> None:
    for each in program:
        run.step(*((each,) if isinstance(each, str) else each))


UNMAPPED: Final = ("paging", ("map", 1, 0), ("dma", 0, 3), ("unmap", 0, 0))
"""A buffer is mapped, written by the device, and unmapped."""
BLOCKED: Final = ("paging", ("map", 5, 0), ("dma", 0, 3), "blocked")
"""A device is blocked while a buffer above the PCI hole is mapped and written."""
LEFT: Final = ("identity", ("dma", 6, 2), "blocked")
"""A device that sees RAM as it is writes, and is blocked."""

PATCHES: Final = [
    ("query_before_unmap", UNMAPPED, IOMMUFD, {}),
    ("unmap_by_mapping", BLOCKED, IOMMUFD, {}),
    ("track_region_del", LEFT, IOMMUFD, {}),
    ("track_region_del", LEFT, TYPE1, {}),
    ("track_region_del", LEFT, {"host_iommu_dirty_tracking": False}, {}),
    ("unmap_events_carry_address", UNMAPPED, IOMMUFD, {}),
    ("logger_ranges_cover_iova_space", UNMAPPED, LOGGER, V3),
]


@pytest.mark.parametrize("reason", TrackingReason)
@pytest.mark.parametrize(("switch", "program", "device", "rules"), PATCHES)
def test_each_patch_is_what_keeps_a_write(
    switch: str,
    program: tuple[Step | str, ...],
    device: dict[str, object],
    rules: dict[str, object],
    reason: TrackingReason,
) -> None:
    for on in (True, False):
        with assembled(device, rules={**rules, switch: on}, reason=reason) as run:
            played(run, *program)
            assert len(run.written) == 1
            harvested, lost = run.harvest()
            assert harvested.failure is None
            assert bool(lost) is not on


def test_wide_unmaps_end_a_migration_on_type1_at_16_tib() -> None:
    with assembled(TYPE1, rules={"unmap_by_mapping": False}) as run:
        played(run, *BLOCKED)
        failure = run.harvest()[0].failure
    assert failure is not None
    assert failure.startswith("vfio_container_dma_unmap(0x100000000000, 0x100000000000) = -7 (Argument list too long)")


def test_of_an_empty_tree_nothing_is_unmapped() -> None:
    with assembled(TYPE1) as run:
        before = run.host.tally.unmaps
        played(run, "paging", "blocked", "paging")
        assert run.host.tally.unmaps == before
        assert run.harvest()[0].failure is None


@pytest.mark.parametrize("on", [True, False])
def test_the_last_query_clears_only_without_patch_5(*, on: bool) -> None:
    with assembled(IOMMUFD, rules={"no_clear_on_unmap_query": on}) as run:
        played(run, *UNMAPPED, *UNMAPPED)
        assert run.host.tally.unmaps == 2
        assert run.host.tally.flushes == (0 if on else 2)


@pytest.mark.parametrize("on", [True, False])
def test_a_failed_query_ends_the_stream_or_loses_a_write(*, on: bool) -> None:
    with assembled(IOMMUFD, rules={"fail_on_query_error": on}) as run:
        played(run, *UNMAPPED[:-1])
        run.host.fail_next("query")
        run.step("unmap")
        assert run.stale() == set()
        harvested, lost = run.harvest()
        assert (harvested.failure is not None) is on
        assert lost


@pytest.mark.parametrize("host_page_size", [4096, 16384, 65536])
@pytest.mark.parametrize("device", [IOMMUFD, TYPE1, LOGGER])
def test_a_bit_of_the_host_is_all_of_its_pages(host_page_size: int, device: dict[str, object]) -> None:
    with assembled(device, rules=V3, host_page_size=host_page_size) as run:
        played(run, "identity", ("dma", 6, 2))
        harvested, lost = run.harvest()
        assert harvested.failure is None
        assert lost == set()
        page = run.machine.memory.offset_of(PAGES[6]) // 4096
        first = page // (host_page_size // 4096) * (host_page_size // 4096)
        assert set(range(first, first + host_page_size // 4096)) <= set(harvested.dma.indexes().tolist())
        assert len(sections(run.machine.memory.block.size)) == 2
