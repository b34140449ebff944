"""Random guests against an independent walk of their tables.

A guest writes registers, tables that point anywhere, bindings and descriptors of any kind. Nothing raises, the work is
bounded, listeners hear only events that fit (`Recorder`), and whatever an invalidation concerned is what the tables
say.
"""

from collections.abc import Iterator

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.vmm.viommu.bare_unit import CONTEXTS, QUEUE, RAM, ROOT, BareUnit
from vmm.memory.guest_physical import AccessFault
from vmm.viommu import registers as reg
from vmm.viommu.context import PassThrough, SecondStage
from vmm.viommu.events import IommuEvent
from vmm.viommu.faults import Fault, FaultReason
from vmm.viommu.intel import View
from vmm.viommu.shadow import power_of_two_chunks

DEVICES = (0x18, 0x20)
DOMAINS = (5, 6)
TABLES = tuple(0x80000 + index * 4096 for index in range(6))
SLOTS = (0, 1, 3, 511)
OUTSIDE = 1 << 40
WORK = 1 << 16
ON = reg.TE | reg.QIE | reg.IRE

Leaf = tuple[int, int, int, int]

devices, domains, tables = st.sampled_from(DEVICES), st.sampled_from(DOMAINS), st.sampled_from(TABLES)
targets = st.one_of(tables, st.sampled_from([OUTSIDE, 0x40000000, 0xFEE00000, CONTEXTS, ROOT]))
flags = st.sampled_from([0, 1, 2, 3, 3, 3, 0x83, 0x83, 0x81, 0x82, 1 << 49 | 3, 1 << 62 | 3, 1 << 63 | 3])
words = st.integers(0, (1 << 64) - 1)
Path = tuple[int, int, int, int]
paths = st.tuples(*[st.sampled_from(SLOTS)] * 4)
pages = paths.map(lambda path: path[0] << 27 | path[1] << 18 | path[2] << 9 | path[3])
granules = st.integers(0, 3).map(lambda granularity: granularity << 4)
descriptors = st.one_of(
    st.tuples(words, words),
    st.builds(
        lambda kind, granularity, domain, device, high: (kind | granularity | domain << 16 | device << 32, high),
        st.integers(0, 10),
        granules,
        domains,
        st.sampled_from([0, *DEVICES]),
        st.one_of(st.just(0), st.sampled_from(TABLES), st.integers(0, 20), words),
    ),
)
OFFSETS = (reg.RTADDR, reg.CCMD, reg.FSTS, reg.FECTL, reg.FEADDR, reg.IQH, reg.IQT, reg.ICS, reg.IECTL, reg.IVA)
MORE_OFFSETS = (
    reg.IOTLB,
    reg.IRTA,
    reg.FRCD_LOW,
    reg.FRCD_HIGH,
    reg.FRCD_TOP,
    reg.CCMD_TOP,
    reg.IOTLB_TOP,
    0,
    2,
    0x400,
)


def leaves(bare: BareUnit, stage: SecondStage) -> Iterator[Leaf]:
    """Every leaf of second-stage tables, whole, one entry at a time."""
    pending = [(stage.root, stage.levels, 0, 3)]
    while pending:
        table, level, base, above = pending.pop()
        try:
            entries = bare.memory.words(table, 512)
        except AccessFault:
            continue
        for index in np.flatnonzero(entries).tolist():
            entry, size = int(entries[index]), 1 << 12 + 9 * (level - 1)
            permission, large = entry & above & 3, bool(entry & 0x80)
            beyond = entry >> 48 & 0xF or entry >> 62 & 1 or (entry & 0x800 and not bare.scalable)
            misplaced = large and (level == 4 or (level > 1 and entry & (size - 1) & ~0xFFF))
            if not permission or beyond or misplaced:
                continue
            address = entry & 0xFFFF_FFFF_F000
            if level == 1 or large:
                yield base + index * size, size - 1, address & ~(size - 1), permission
            else:
                pending.append((address, level - 1, base + index * size, permission))


def visible(bare: BareUnit, stage: SecondStage) -> set[Leaf]:
    """What of the leaves a listener sees: nothing of the interrupt hole, and beside it what chunks would unmap."""
    seen = set()
    for iova, mask, translated, permission in leaves(bare, stage):
        for low, high in ((0, 0xFEDFFFFF), (0xFEF00000, (1 << 48) - 1)):
            first, last = max(iova, low), min(iova + mask, high)
            for start, size in power_of_two_chunks(first, last):
                seen.add((start, size - 1, translated + start - iova, permission))
    return seen


class HostileGuest(RuleBasedStateMachine):
    """A guest with two devices; `scalable` is drawn."""

    tables_read = 0

    @initialize(scalable=st.booleans())
    def boot(self, scalable: bool) -> None:
        self.bare = BareUnit(scalable=scalable)
        for devfn in DEVICES:
            self.bare.follow(devfn)
        self.bare.enable()
        for devfn in DEVICES:
            self.bare.bind(devfn, DOMAINS[0], TABLES[0])
        self._settle()

    @rule(table=tables, slot=st.sampled_from(SLOTS), leads_to=targets, bits=flags)
    def write_entry(self, table: int, slot: int, leads_to: int, bits: int) -> None:
        self.bare.write(table + slot * 8, leads_to | bits)

    @rule(path=paths, level=st.integers(1, 3), frame=st.integers(0, 511), permission=st.integers(0, 3))
    def map(self, path: Path, level: int, frame: int, permission: int) -> None:
        """Write a leaf and what leads there, in one table for each level: what a guest in order might do."""
        for depth in range(4, level, -1):
            self.bare.write(TABLES[4 - depth] + path[4 - depth] * 8, TABLES[5 - depth] | 3)
        leaf = frame << 12 + 9 * (level - 1) | (0x80 if level > 1 else 0) | permission
        self.bare.write(TABLES[4 - level] + path[4 - level] * 8, leaf)

    @rule(devfn=devices, domain=domains, root=st.one_of(st.none(), targets))
    def bind(self, devfn: int, domain: int, root: int | None) -> None:
        self.bare.bind(devfn, domain, root)

    @rule(devfn=devices, low=words, high=words, present=st.booleans())
    def spoil_binding(self, devfn: int, low: int, high: int, present: bool) -> None:
        place = CONTEXTS + (devfn * 32 if self.bare.scalable else devfn * 16)
        self.bare.write(place, low | 1 if present else low & ~1, high)

    @rule(devfn=devices)
    def block(self, devfn: int) -> None:
        self.bare.block(devfn)

    @rule(on=st.booleans())
    def track(self, on: bool) -> None:
        self.bare.tracking = on
        for listener in self.bare.listeners.values():
            listener.strict = on

    @rule(on=st.sampled_from([0, reg.TE, reg.QIE, reg.TE | reg.QIE, reg.IRE]), more=st.sampled_from([0, reg.SIRTP]))
    def command(self, on: int, more: int) -> None:
        self.bare.unit.write_register(reg.GCMD, on | more)

    @rule(offset=st.sampled_from(OFFSETS + MORE_OFFSETS), value=words)
    def write_register(self, offset: int, value: int) -> None:
        self.bare.unit.write_register(offset, value)
        self.bare.unit.read_register(offset)

    @rule(
        posted=st.lists(descriptors, max_size=6), base=st.sampled_from([QUEUE, QUEUE, TABLES[0], OUTSIDE, RAM - 4096])
    )
    def post_anything(self, posted: list[tuple[int, int]], base: int) -> None:
        self.bare.unit.write_register(reg.IQA, base | (reg.IQA_DW if self.bare.scalable else 0))
        self.bare.post(*posted)

    @rule(devfn=devices, iova=st.one_of(words, st.integers(0, 1 << 31)), write=st.booleans())
    def dma(self, devfn: int, iova: int, write: bool) -> None:
        self.bare.unit.address_space(devfn).translate(iova, write=write)

    @rule(devfn=devices)
    def log_sync(self, devfn: int) -> None:
        space = self.bare.unit.address_space(devfn)
        delivered: list[IommuEvent] = []
        space.replay(delivered.append)
        assert [(event.iova, event.mask, event.translated) for event in delivered] == [
            (record.iova, record.size, record.translated) for record in space.mappings
        ]

    @rule()
    def settle(self) -> None:
        self._settle()

    @rule(devfn=devices)
    def invalidate_context(self, devfn: int) -> None:
        before, was = self._held(devfn), self.bare.unit.address_space(devfn).view
        if self._do(1 | 3 << 4 | devfn << 32):
            expected = self._expected(devfn)
            unchanged = before if was is View.TRANSLATED else set()
            assert self._held(devfn) == (unchanged if expected is None else expected)

    @rule()
    def invalidate_translations(self) -> None:
        before = {devfn: self._held(devfn) for devfn in DEVICES}
        if self._do(2 | 1 << 4):
            for devfn in DEVICES:
                if self.bare.unit.address_space(devfn).view is View.TRANSLATED and not self._passes_through(devfn):
                    expected = self._expected(devfn)
                    assert self._held(devfn) == (before[devfn] if expected is None else expected)

    @rule(
        domain=domains,
        page=st.one_of(pages, st.integers(0, 1 << 36)),
        order=st.sampled_from([0, 0, 1, 9, 18]),
    )
    def invalidate_pages(self, domain: int, page: int, order: int) -> None:
        before = {devfn: self._held(devfn) for devfn in DEVICES}
        if not self._do(2 | 3 << 4 | domain << 16, page << 12 | order):
            return
        first = page >> order << order + 12
        last = first + (4096 << order) - 1
        for devfn in DEVICES:
            binding = self.bare.unit._look_up(devfn)
            shown = self.bare.unit.address_space(devfn).view is View.TRANSLATED
            if not (shown and isinstance(binding, SecondStage) and binding.domain_id == domain):
                assert self._held(devfn) == before[devfn]
                continue
            now, held = visible(self.bare, binding), self._held(devfn)
            assert _touching(held, first, last) == _touching(now, first, last)
            assert held <= now | before[devfn]

    @rule()
    def invalidate_pasids(self) -> None:
        if self.bare.scalable and self._do(7 | 3 << 4) and self.bare.unit._root.scalable:
            for devfn in DEVICES:
                expected = self._expected(devfn)
                assert expected is None or self._held(devfn) == expected

    @rule()
    def move(self) -> None:
        """To another host: RAM and registers, nothing else."""
        old = self.bare
        new = BareUnit(scalable=old.scalable)
        new.memory.block.data[:] = old.memory.block.data
        new.pasid_tables, new.tail, new.tracking = old.pasid_tables, old.tail, old.tracking
        for devfn in DEVICES:
            new.follow(devfn).replay(lambda event: None)
            new.listeners[devfn].strict = new.tracking
        new.unit.load(old.unit.save())
        assert new.unit.save() == old.unit.save()
        self.bare, self.tables_read = new, 0
        for devfn in DEVICES:
            assert self._held(devfn) == (self._expected(devfn) or set())
            assert new.unit.address_space(devfn).view is (View.RAM if self._passes_through(devfn) else View.TRANSLATED)

    @invariant()
    def what_is_told_is_what_is_known(self) -> None:
        for devfn in DEVICES if hasattr(self, "bare") else ():
            space = self.bare.unit.address_space(devfn)
            known = {(record.iova, record.size, record.translated, record.permission) for record in space.mappings}
            assert known == self._held(devfn)
            assert space.view is View.TRANSLATED or not known

    @invariant()
    def work_is_bounded(self) -> None:
        if hasattr(self, "bare"):
            before, self.tables_read = self.tables_read, self.bare.unit._translator.walker.tables_read
            assert self.tables_read - before < WORK

    def _held(self, devfn: int) -> set[Leaf]:
        return {
            (event.iova, event.mask, event.translated, event.readable | event.writable << 1)
            for event in self.bare.listeners[devfn].held.values()
        }

    def _passes_through(self, devfn: int) -> bool:
        return isinstance(self.bare.unit._look_up(devfn), PassThrough | None)

    def _expected(self, devfn: int) -> set[Leaf] | None:
        """What is mapped after a sync; None: what was mapped stays, as the structures are malformed."""
        binding = self.bare.unit._look_up(devfn)
        if isinstance(binding, SecondStage):
            return visible(self.bare, binding)
        if isinstance(binding, Fault) and binding.reason is not FaultReason.CONTEXT_NOT_PRESENT:
            return None
        return set()

    def _settle(self) -> None:
        """A new root table concerns every device, whatever its structures are."""
        bare = self.bare
        bare.write(ROOT, CONTEXTS | 1, 0)
        bare.unit.write_register(reg.RTADDR, ROOT | (reg.RTADDR_SMT if bare.scalable else 0))
        bare.unit.write_register(reg.GCMD, bare.unit.read_register(reg.GSTS) & ON | reg.SRTP)
        for devfn in DEVICES:
            assert self._held(devfn) == (self._expected(devfn) or set())

    def _do(self, low: int, high: int = 0) -> bool:
        """Post one command to a queue in order; False where the guest has no way to get one."""
        unit, queue = self.bare.unit, self.bare.unit._queue
        if not queue.enabled:
            unit.write_register(reg.IQT, 0)
            unit.write_register(reg.FSTS, reg.FSTS_IQE)
            unit.write_register(reg.IQA, QUEUE | (reg.IQA_DW if self.bare.scalable else 0))
            unit.write_register(reg.GCMD, unit.read_register(reg.GSTS) & ON | reg.QIE)
        width = 32 if queue.wide else 16
        if queue.base + queue.size * width > RAM:
            return False
        ring = self.bare.memory.words(queue.base, queue.size * width // 8).reshape(queue.size, -1)
        ring[:] = 0
        ring[:, 0] = 5 | 1 << 6
        shift = width.bit_length() - 1
        unit.write_register(reg.IQT, queue.head << shift)
        unit.write_register(reg.FSTS, reg.FSTS_IQE)
        ring[queue.head, :2] = (low, high)
        unit.write_register(reg.IQT, (queue.head + 1) % queue.size << shift)
        assert not unit.read_register(reg.FSTS) & reg.FSTS_IQE
        return True


def _touching(found: set[Leaf], first: int, last: int) -> set[Leaf]:
    return {leaf for leaf in found if leaf[0] <= last and leaf[0] + leaf[1] >= first}


HostileGuest.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestHostileGuests = HostileGuest.TestCase
