"""What every listener hears of an invalidation, event by event (semantics 4.9, 4.12 to 4.14; seeds 000 and 002)."""

import pytest

from tests.vmm.viommu.bare_unit import ROOT, BareUnit, Log, masks
from vmm.rules import Rules
from vmm.viommu import registers as reg
from vmm.viommu.descriptors import DescriptorType
from vmm.viommu.errors import SnoopControlUnsupported
from vmm.viommu.intel import View, VtdConfiguration, VtdUnit

A, B = 0x18, 0x20
MIB = 1 << 20
LOW = [size * MIB - 1 for size in (2048, 1024, 512, 256, 128, 64, 32, 8, 4, 2)]
HIGH = [MIB - 1, 16 * MIB - 1, *((1 << order) - 1 for order in range(32, 48))]
CHUNKS = LOW + HIGH
PAGE, LARGE = ("map", 0x1000, 0xFFF, 0xA000), ("map", 0x200000, 0x1FFFFF, 0x40000000)
NO_MAPPING_UNMAPS, NO_ADDRESSES = Rules(unmap_by_mapping=False), Rules(unmap_events_carry_address=False)


def gone(entry: tuple[str, int, int, int], translated: int | None = None) -> tuple[str, int, int, int]:
    return "unmap", entry[1], entry[2], entry[3] if translated is None else translated


def chunks_are(log: Log) -> bool:
    return masks(log) == CHUNKS and all(entry[0] == "unmap" and entry[-1] == 0 for entry in log if len(entry) == 4)


def mapped(*, scalable: bool = False, rules: Rules | None = None, tracking: bool = False) -> tuple[BareUnit, int]:
    """Device A in domain 5 with the two mappings of the worked vector V5, and its root table."""
    bare = BareUnit(scalable=scalable, rules=rules)
    bare.follow(A)
    bare.enable()
    root = bare.page()
    bare.map(root, 0x1000, 0xA000 | 3)
    bare.map(root, 0x200000, 0x40000000 | 0x83, level=2)
    bare.bind(A, 5, root)
    bare.binding_changed(A, 5)
    if scalable:
        bare.post((2 | 2 << 4 | 5 << 16, 0))
    assert bare.log == [PAGE, LARGE]
    bare.log.clear()
    bare.tracking = tracking
    return bare, root


both_modes = pytest.mark.parametrize("scalable", [False, True], ids=["legacy", "scalable"])


@both_modes
def test_from_pass_through_to_blocked_to_paging_and_back(scalable: bool) -> None:
    bare, root = mapped(scalable=scalable, tracking=True)
    bare.block(A)
    bare.binding_changed(A, 5)
    assert bare.log == [gone(PAGE), gone(LARGE)]
    bare.log.clear()
    bare.bind(A, 1, None)
    bare.binding_changed(A, 1)
    assert bare.log == [("-iommu", A), ("+ram", A)]
    bare.log.clear()
    bare.block(A)
    bare.binding_changed(A, 1)
    assert bare.log == [("-ram", A), ("+iommu", A)]
    bare.log.clear()
    bare.bind(A, 5, root)
    bare.binding_changed(A, 5)
    assert bare.log == [PAGE, LARGE]
    bare.log.clear()
    bare.block(A)
    bare.bind(A, 1, None)
    bare.binding_changed(A, 1)
    assert bare.log == [gone(PAGE), gone(LARGE), ("-iommu", A), ("+ram", A)]


@both_modes
@pytest.mark.parametrize(("tracking", "rules"), [(False, Rules()), (True, NO_MAPPING_UNMAPS)])
def test_a_blocked_device_is_unmapped_by_chunks(scalable: bool, tracking: bool, rules: Rules) -> None:
    bare, _ = mapped(scalable=scalable, tracking=tracking, rules=rules)
    bare.block(A)
    bare.binding_changed(A, 5)
    assert chunks_are(bare.log)
    assert bare.log[-4] == ("unmap", 1 << 44, (1 << 44) - 1, 0), "16 TiB: the first that type1 refuses while tracking"
    assert not bare.listeners[A].held


def test_a_switch_from_pass_through_without_the_patch_unmaps_what_was_never_mapped() -> None:
    """The chain of seed 002: context-device, then the switch, then the sync of a context that is not present."""
    for rules, unmaps in ((NO_MAPPING_UNMAPS, True), (Rules(), False)):
        bare = BareUnit(rules=rules)
        bare.follow(A)
        bare.enable()
        bare.bind(A, 1, None)
        bare.binding_changed(A, 1)
        bare.tracking = True
        bare.log.clear()
        bare.block(A)
        bare.binding_changed(A, 1)
        assert bare.log[:2] == [("-ram", A), ("+iommu", A)]
        assert chunks_are(bare.log[2:]) is unmaps
        assert bool(bare.log[2:]) is unmaps


@pytest.mark.parametrize("command", [1 | 1 << 4, 1 | 2 << 4 | 77 << 16], ids=["global", "domain"])
def test_a_global_invalidation_unmaps_all_then_switches_all_then_replays(command: int) -> None:
    bare, root = mapped()
    bare.follow(B)
    bare.bind(B, 5, root)
    bare.binding_changed(B, 5)
    bare.bind(A, 1, None)
    bare.tracking = True
    bare.log.clear()
    bare.post((command, 0))
    assert bare.log == [*(gone(PAGE), gone(LARGE)) * 2, ("-iommu", A), ("+ram", A), PAGE, LARGE]


@pytest.mark.parametrize("written", [reg.QIE | reg.TE | reg.SRTP, reg.QIE])
def test_a_new_root_and_the_end_of_translation_are_global(written: int) -> None:
    bare, _ = mapped(tracking=True)
    bare.unit.write_register(reg.GCMD, written)
    switched: Log = [PAGE, LARGE] if written & reg.TE else [("-iommu", A), ("+ram", A)]
    assert bare.log == [gone(PAGE), gone(LARGE), *switched]


def test_translations_are_invalidated_for_the_domain_only() -> None:
    bare, root = mapped()
    bare.follow(B)
    bare.bind(B, 6, root)
    bare.binding_changed(B, 6)
    place = bare.map(root, 0x1000, 0)
    bare.log.clear()
    bare.post((2 | 2 << 4 | 7 << 16, 0))
    assert bare.log == []
    bare.post((2 | 2 << 4 | 6 << 16, 0))
    assert bare.log == [gone(PAGE)]
    bare.post((2 | 1 << 4, 0))
    assert bare.log == [gone(PAGE)] * 2
    bare.log.clear()
    bare.write(place, 0xB000 | 1)
    bare.map(root, 0x3000, 0xC000 | 2)
    bare.post((2 | 3 << 4 | 5 << 16, 0x3000))
    assert bare.log == [("map", 0x3000, 0xFFF, 0xC000)], "only the page that is named, of the domain that is named"
    bare.post((2 | 3 << 4 | 5 << 16, 0x0000 | 1))
    assert bare.log[1:] == [("map", 0x1000, 0xFFF, 0xB000)]
    read_only, write_only = bare.listeners[A].held[0x1000], bare.listeners[A].held[0x3000]
    assert (read_only.readable, read_only.writable) == (True, False)
    assert (write_only.readable, write_only.writable) == (False, True)


def test_pasids_select_translations() -> None:
    bare, root = mapped(scalable=True)
    bare.map(root, 0x1000, 0)
    bare.post((6 | 2 << 4 | 5 << 16 | 9 << 32, 0), (6 | 3 << 4 | 5 << 16 | 9 << 32, 0x1000))
    assert bare.log == []
    bare.post((6 | 3 << 4 | 5 << 16, 0x1000))
    assert bare.log == [gone(PAGE)]
    bare.map(root, 0x200000, 0, level=2)
    bare.post((6 | 2 << 4 | 5 << 16, 0))
    assert bare.log[1:] == [gone(LARGE)]


def test_pasid_entries_that_go_come_and_change() -> None:
    bare, _ = mapped(scalable=True, tracking=True)
    bare.block(A)
    bare.post((2 | 2 << 4 | 5 << 16, 0), (1 | 3 << 4 | A << 32, 0))
    assert bare.log == [], "a sync that meets no valid entry only reports it"
    assert bare.unit.address_space(A).lookups_refused == 1
    bare.post((7 | 9 << 16, 0))
    assert bare.log == [gone(PAGE), gone(LARGE)], "whatever domain the command names, as the entry is invalid"
    bare.post((7 | 3 << 4, 0))
    assert len(bare.log) == 2, "it became invalid once"
    other = bare.page()
    bare.map(other, 0x1000, 0xD000 | 3)
    bare.bind(A, 6, other)
    bare.post((7 | 5 << 16, 0))
    assert bare.log[2:] == [], "named before or after, and it was in no domain before"
    bare.post((7 | 1 << 4 | 6 << 16, 0))
    assert bare.log[2:] == [("map", 0x1000, 0xFFF, 0xD000)]
    bare.bind(A, 7, bare.page())
    bare.post((7 | 6 << 16, 0))
    assert bare.log[3:] == [("unmap", 0x1000, 0xFFF, 0xD000)], "the domain that the entry named before counts"


def test_a_pasid_cache_means_nothing_while_the_root_is_of_legacy_mode() -> None:
    bare = BareUnit(scalable=True)
    bare.follow(A)
    bare.enable()
    root = bare.page()
    bare.map(root, 0x1000, 0xA000 | 3)
    contexts = bare.page()
    bare.write(ROOT, contexts | 1, 0)
    bare.write(contexts + A * 16, root | 1, 2 | 5 << 8)
    bare.unit.write_register(reg.RTADDR, ROOT)
    bare.unit.write_register(reg.GCMD, reg.QIE | reg.TE | reg.SRTP)
    assert bare.log[-1] == PAGE
    bare.write(contexts + A * 16, 0, 0)
    bare.log.clear()
    bare.post((7 | 3 << 4, 0))
    assert bare.log == []
    assert not bare.unit.read_register(reg.FSTS)


def test_malformed_structures_change_nothing() -> None:
    bare, root = mapped()
    bare.write(0x2000 + A * 16, root | 1 | 0x10, 2 | 5 << 8)
    bare.binding_changed(A, 5)
    bare.post((2 | 1 << 4, 0))
    assert bare.log == []
    assert bare.unit.address_space(A).lookups_refused == 2


@pytest.mark.parametrize(("left", "carried"), [(0, 0), (0xF000, 0xF000), (0xE000 | 3, 0xE000)])
def test_without_the_switch_an_unmap_carries_what_the_entry_holds_now(left: int, carried: int) -> None:
    for rules, translated in ((NO_ADDRESSES, carried), (Rules(), 0xA000)):
        bare, root = mapped(rules=rules, tracking=True)
        bare.map(root, 0x1000, left)
        bare.post((2 | 3 << 4 | 5 << 16, 0x1000))
        assert bare.log[0] == gone(PAGE, translated)
        assert bare.log[1:] == ([("map", 0x1000, 0xFFF, 0xE000)] if left & 3 else [])


def test_without_the_switch_a_table_that_is_gone_leaves_no_address() -> None:
    bare, root = mapped(rules=NO_ADDRESSES)
    bare.write(root, 0)
    bare.post((2 | 1 << 4, 0))
    assert bare.log == [gone(PAGE, 0), gone(LARGE, 0)]
    bare, root = mapped(rules=NO_ADDRESSES)
    bare.write(root, 1 << 40 | 3)
    bare.post((2 | 1 << 4, 0))
    assert bare.log == [gone(PAGE, 0), gone(LARGE, 0)]


@pytest.mark.parametrize("tracking", [False, True])
def test_whoever_follows_no_mappings_hears_whole_ranges(tracking: bool) -> None:
    """An UNMAP notifier: it needs no caching mode, and no walk is made for it."""
    bare = BareUnit()
    bare.follow(A, follows_maps=False)
    bare.enable()
    root = bare.page()
    bare.map(root, 0x1000, 0xA000 | 3)
    bare.bind(A, 5, root)
    bare.tracking = tracking
    whole: Log = [("unmap", 0, 0xFEDFFFFF, 0), ("unmap", 0xFEF00000, (1 << 48) - 1 - 0xFEF00000, 0)]
    bare.binding_changed(A, 5)
    assert bare.log == whole
    bare.log.clear()
    bare.post((2 | 3 << 4 | 5 << 16, 0x1000))
    assert bare.log == [("unmap", 0x1000, 0xFFF, 0)]
    bare.log.clear()
    bare.post((2 | 3 << 4 | 5 << 16, 0xFEC00000 | 10))
    assert bare.log == [("unmap", 0xFEC00000, 0x1FFFFF, 0), ("unmap", 0xFEF00000, 0xFFFFF, 0)], "cropped to notifiers"
    bare.log.clear()
    bare.post((1 | 1 << 4, 0))
    assert bare.log == whole * 2
    assert bare.unit.address_space(A).mappings == ()


def test_nothing_of_first_stage_tables_is_mapped() -> None:
    """Nesting is out of scope, so a passed-through device reaches nothing by them."""
    bare = BareUnit(scalable=True)
    configured = VtdConfiguration(
        scalable=True, aw_bits=48, caching_mode=True, dma_translation=True, reports_max_iova=True, first_stage=True
    )
    bare.unit = VtdUnit(bare.memory, configured, lambda: bare.tracking)
    space = bare.follow(A)
    bare.enable()
    entry, table = bare.pasid_entry(A), bare.page()
    bare.write(table, *[table | 7] * 512)
    bare.write(entry, 1 | 1 << 6, 5, table)
    bare.post((7 | 3 << 4, 0), (6 | 2 << 4 | 5 << 16, 0), (6 | 3 << 4 | 5 << 16, 0x1000), (2 | 1 << 4, 0))
    assert (space.view, space.mappings, bare.log) == (View.TRANSLATED, (), [])
    assert space.lookups_refused == 0


def test_a_unit_that_only_remaps_interrupts_never_translates() -> None:
    bare = BareUnit()
    configured = VtdConfiguration(
        scalable=False, aw_bits=48, caching_mode=False, dma_translation=False, reports_max_iova=True
    )
    bare.unit = VtdUnit(bare.memory, configured, lambda: True)
    space = bare.follow(A)
    assert (space.dma_translation, space.max_iova) == (False, (1 << 48) - 1)
    bare.enable()
    bare.unit.write_register(reg.GCMD, reg.QIE | reg.TE | reg.IRE)
    bare.post((1 | 1 << 4, 0), (2 | 1 << 4, 0))
    assert space.view is View.RAM
    assert bare.log == []
    assert not bare.unit.read_register(reg.GSTS) & reg.TE
    assert bare.unit.read_register(reg.CAP) >> 8 & 0x1F == 0, "no address width"


@pytest.mark.parametrize(("aw_bits", "max_iova"), [(39, 0x7FFFFFFFFF), (48, 0xFFFFFFFFFFFF)])
def test_attributes_are_known_before_the_first_mapping(aw_bits: int, max_iova: int) -> None:
    space = BareUnit(aw_bits=aw_bits).unit.address_space(A)
    assert (space.max_iova, space.dma_translation, space.mappings) == (max_iova, True, ())


def test_snoop_control_and_passed_through_devices_exclude_each_other() -> None:
    bare = BareUnit()
    configured = VtdConfiguration(
        scalable=False,
        aw_bits=48,
        caching_mode=True,
        dma_translation=True,
        reports_max_iova=True,
        snoop_control=True,
    )
    bare.unit = VtdUnit(bare.memory, configured, lambda: False)
    with pytest.raises(SnoopControlUnsupported):
        bare.follow(A)
    bare.enable()
    bare.post((5 | 1 << 5, 0x9000))
    assert bare.log == [], "a listener that was refused hears nothing"


def test_the_last_descriptor_type_is_what_was_met() -> None:
    bare, _ = mapped()
    bare.post((9, 0))
    assert bare.unit.read_register(reg.FSTS) == reg.FSTS_IQE
    assert bare.unit._queue.last_type is DescriptorType.PAGE_GROUP_RESPONSE


def test_a_new_large_leaf_takes_the_place_of_pages_that_nobody_named() -> None:
    bare, root = mapped()
    bare.map(root, 0x600000, 0, level=2)
    bare.map(root, 0x605000, 0xC000 | 3)
    bare.post((2 | 3 << 4 | 5 << 16, 0x605000))
    bare.map(root, 0x600000, 0x800000 | 0x83, level=2)
    bare.post((2 | 3 << 4 | 5 << 16, 0x608000))
    small = ("map", 0x605000, 0xFFF, 0xC000)
    assert bare.log == [small, gone(small), ("map", 0x600000, 0x1FFFFF, 0x800000)]


def test_a_leaf_around_the_interrupt_hole_is_cut_as_wide_unmaps_are() -> None:
    """1 GiB at 3 GiB: no chunk of a whole-range unmap may end within a mapping."""
    bare, root = mapped()
    bare.map(root, 0xC0000000, 0x40000000 | 0x83, level=3)
    bare.post((2 | 3 << 4 | 5 << 16, 0xC0000000))
    sizes = [512, 256, 128, 64, 32, 8, 4, 2, 1, 16]
    assert masks(bare.log) == [size * MIB - 1 for size in sizes]
    assert all(entry[3] - entry[1] == 0x40000000 - 0xC0000000 for entry in bare.log if len(entry) == 4)
    bare.log.clear()
    bare.map(root, 0xC0000000, 0, level=3)
    bare.post((2 | 3 << 4 | 5 << 16, 0xFFFFF000))
    assert masks(bare.log) == [size * MIB - 1 for size in sizes], "the pieces of a leaf go together"
    bare.map(root, 0xC0000000, 0x40000000 | 0x83, level=3)
    bare.post((2 | 3 << 4 | 5 << 16, 0xFF000000))
    bare.block(A)
    bare.binding_changed(A, 5)
    assert not bare.listeners[A].held
