"""The guest kernel's VT-d driver: domains, devices' bindings, and DMA mappings.

::

    tables base: | root | status | queue (2 pages) | pool: context, PASID and second-stage tables ...

Every change follows the order that the hardware asks for: tables first, then the invalidation, then, for what was
taken away, the reuse of pages and addresses. The unit caches entries that are not present (caching mode), so new
entries are invalidated too. A device goes from one domain to another through the blocked domain (semantics 4.1).

A device may have two paging domains: the kernel's own, which lasts, and one of a user-level driver, which is made when
such a driver takes the device and goes, with whatever it still maps, after the device has left it.
"""

from typing import Final

import msgspec

from vmm.guest.dma import RegisterPort
from vmm.guest.iova_allocator import AllocatorState, IovaAllocator
from vmm.guest.vtd_domain import DomainKind, PagingDomain
from vmm.guest.vtd_errors import DriverStateRefused, UnsupportedUnit
from vmm.guest.vtd_queue import (
    ENTRIES,
    InvalidationRing,
    QueueState,
    all_contexts,
    all_pasids,
    all_translations,
    context_of_device,
    pasid_entry,
    translations_of_domain,
)
from vmm.guest.vtd_structures import ContextState, DeviceBindings
from vmm.guest.vtd_tables import PoolState, SecondStageTables, TablePool
from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import PAGE_SIZE
from vmm.viommu import registers as reg

_STATUS: Final = 1 * PAGE_SIZE
_QUEUE: Final = 2 * PAGE_SIZE
_POOL: Final = 4 * PAGE_SIZE
_IDENTITY_ID: Final = 1
_FIRST_ID: Final = 2
_STATE_VERSION: Final = 2
_TRANSLATED: Final = (DomainKind.PAGING, DomainKind.USER)


class DomainState(msgspec.Struct, frozen=True, array_like=True):
    """A paging domain that moves."""

    devfn: int
    kind: str
    domain_id: int
    root: int
    allocator: AllocatorState


class DriverState(msgspec.Struct, frozen=True, array_like=True):
    """What the driver knows beside its tables."""

    version: int
    scalable: bool
    levels: int
    command: int
    pool: PoolState
    queue: QueueState
    contexts: ContextState
    kinds: tuple[tuple[int, str], ...]
    domains: tuple[DomainState, ...]


class VtdDriver:
    """The driver of one unit. It is made before `enable`, or before `load` on a destination; neither touches RAM."""

    def __init__(
        self, memory: GuestMemory, registers: RegisterPort, *, scalable: bool, aw_bits: int, tables: tuple[int, int]
    ) -> None:
        base, size = tables
        self._memory: Final = memory
        self._registers: Final = registers
        self._scalable: Final = scalable
        self._aw_bits: Final = aw_bits
        self._levels: Final = (aw_bits - 12) // 9
        self._root: Final = base
        self._pool: Final = TablePool(memory, base + _POOL, size - _POOL)
        self._ring: Final = InvalidationRing(memory, registers, base + _QUEUE, base + _STATUS, wide=scalable)
        self._bindings: Final = DeviceBindings(memory, self._pool, base, scalable=scalable, levels=self._levels)
        self._command = 0
        self._kinds: dict[int, DomainKind] = {}
        self._domains: dict[tuple[int, DomainKind], PagingDomain] = {}

    def enable(self) -> None:
        """Turn translation on; every device is blocked until it is attached.

        Raises:
            UnsupportedUnit: The unit lacks second-stage tables of this width, or what else the driver needs.
        """
        self._check_capabilities()
        self._memory.write(self._root, bytes(_POOL))
        self._registers.write(reg.RTADDR, self._root | (reg.RTADDR_SMT if self._scalable else 0))
        self._order(reg.SRTP)
        self._ring.program()
        self._order(reg.QIE)
        pasids = [all_pasids()] if self._scalable else []
        self._ring.submit([all_contexts(), *pasids, all_translations()])
        self._order(reg.TE)

    def attach(self, devfn: int, domain: DomainKind) -> None:
        """Bring a device into a domain; on the way from one to another it is blocked.

        Raises:
            MapFailed: No page is left for a table; the device is blocked.
        """
        present = self._kinds.get(devfn, DomainKind.BLOCKED)
        if present is domain:
            return
        if present is not DomainKind.BLOCKED:
            self._bindings.block(devfn)
            self._kinds[devfn] = DomainKind.BLOCKED
            self._forget_binding(devfn, self._domain_id(devfn, present))
        if domain is DomainKind.BLOCKED:
            return
        second_stage = self.domain(devfn, domain).tables.root if domain in _TRANSLATED else None
        if self._bindings.prepare(devfn):
            self._ring.submit([context_of_device(0, devfn)])
        self._bindings.bind(devfn, self._domain_id(devfn, domain), second_stage)
        self._kinds[devfn] = domain
        self._forget_binding(devfn, self._domain_id(devfn, domain))

    def domain_of(self, devfn: int) -> DomainKind:
        """Return the domain that a device is in."""
        return self._kinds.get(devfn, DomainKind.BLOCKED)

    def domain(self, devfn: int, kind: DomainKind = DomainKind.PAGING) -> PagingDomain:
        """Return a device's paging domain, made on the first call; it takes effect while the device is attached.

        Raises:
            MapFailed: No page is left for its root table.
        """
        domain = self._domains.get((devfn, kind))
        if domain is None:
            taken = {each.domain_id for each in self._domains.values()}
            free = next(number for number in range(_FIRST_ID, _FIRST_ID + len(taken) + 1) if number not in taken)
            domain = self._make_domain(free, self._pool.allocate())
            self._domains[devfn, kind] = domain
        return domain

    @property
    def spare_pages(self) -> int:
        """How many pages are left for tables."""
        return self._pool.available

    def discard(self, devfn: int) -> None:
        """Free the tables of a user-level driver's domain, with all that they still map; the device has left it.

        The unit forgot the domain's translations when the device left, so pages and number are free at once.
        """
        if self.domain_of(devfn) is DomainKind.USER:
            raise AssertionError(f"Device 0x{devfn:x} is still in the domain whose tables are to be freed")
        domain = self._domains.pop((devfn, DomainKind.USER), None)
        if domain is not None:
            self._pool.release(domain.tables.pages())

    def save(self) -> bytes:
        """Return the one encoding of what the driver knows beside its tables."""
        domains = tuple(
            DomainState(devfn, kind.value, domain.domain_id, domain.tables.root, domain.allocator.save())
            for (devfn, kind), domain in sorted(self._domains.items(), key=_place)
        )
        kinds = tuple((devfn, kind.value) for devfn, kind in sorted(self._kinds.items()))
        state = DriverState(
            _STATE_VERSION,
            self._scalable,
            self._levels,
            self._command,
            self._pool.save(),
            self._ring.save(),
            self._bindings.save(),
            kinds,
            domains,
        )
        return msgspec.msgpack.encode(state)

    def load(self, state: bytes) -> None:
        """Continue where the driver that saved this stopped; RAM is not touched.

        Raises:
            DriverStateRefused: The bytes are no state of such a driver. Nothing was changed.
        """
        loaded, kinds = self._decode(state)
        self._command = loaded.command
        self._pool.load(loaded.pool)
        self._ring.load(loaded.queue)
        self._bindings.load(loaded.contexts)
        self._kinds = kinds
        self._domains = {}
        for each in loaded.domains:
            domain = self._make_domain(each.domain_id, each.root)
            domain.allocator.load(each.allocator)
            self._domains[each.devfn, DomainKind(each.kind)] = domain

    def _decode(self, state: bytes) -> tuple[DriverState, dict[int, DomainKind]]:
        try:
            loaded = msgspec.msgpack.decode(state, type=DriverState)
            kinds = {devfn: DomainKind(kind) for devfn, kind in loaded.kinds}
            owners = {(domain.devfn, DomainKind(domain.kind)) for domain in loaded.domains}
        except (msgspec.MsgspecError, ValueError) as error:
            raise DriverStateRefused("Bytes are not a state of the VT-d driver") from error
        if msgspec.msgpack.encode(loaded) != state:
            raise DriverStateRefused("State of the VT-d driver is not in its canonical form")
        if (loaded.version, loaded.scalable, loaded.levels) != (_STATE_VERSION, self._scalable, self._levels):
            raise DriverStateRefused("State is of a VT-d driver of another mode, address width or version")
        pages = [domain.root for domain in loaded.domains] + list(loaded.pool.free)
        pages += [page for _, page in (*loaded.contexts.contexts, *loaded.contexts.pasids)]
        if not self._pool.could_be_at(loaded.pool) or not 0 <= loaded.queue.tail < ENTRIES:
            raise DriverStateRefused("State of the VT-d driver has a position outside its pool or queue")
        if not all(map(self._pool.owns, pages)) or len(set(pages)) != len(pages):
            raise DriverStateRefused("State of the VT-d driver names a table outside its pool, or one twice")
        bound = {(devfn, kind) for devfn, kind in kinds.items() if kind in _TRANSLATED}
        numbers = {domain.domain_id for domain in loaded.domains}
        distinct = len(owners) == len(numbers) == len(loaded.domains)
        if not distinct or not bound <= owners or any(kind not in _TRANSLATED for _, kind in owners):
            raise DriverStateRefused(
                "State of the VT-d driver has a domain twice, or a device in one that is not there"
            )
        return loaded, kinds

    def _check_capabilities(self) -> None:
        capabilities, extended = self._registers.read(reg.CAP), self._registers.read(reg.ECAP)
        width = reg.CAP_SAGAW_48 if self._levels == 4 else reg.CAP_SAGAW_39
        needed = reg.ECAP_QI | reg.ECAP_PT | (reg.ECAP_SMTS | reg.ECAP_SSTS if self._scalable else 0)
        if not capabilities & width or not capabilities & reg.CAP_PSI or extended & needed != needed:
            mode = "scalable" if self._scalable else "legacy"
            raise UnsupportedUnit(f"Unit does not offer {mode} mode with {self._levels} levels of second-stage tables")

    def _order(self, bit: int) -> None:
        """Write the command register, which takes what is on already with every command, and check the status."""
        self._registers.write(reg.GCMD, self._command | bit)
        if bit != reg.SRTP:
            self._command |= bit
        if not self._registers.read(reg.GSTS) & bit:
            raise UnsupportedUnit(f"Unit did not follow command 0x{bit:x}")

    def _forget_binding(self, devfn: int, domain_id: int) -> None:
        binding = pasid_entry(domain_id, 0) if self._scalable else context_of_device(domain_id, devfn)
        self._ring.submit([binding, translations_of_domain(domain_id)])

    def _domain_id(self, devfn: int, kind: DomainKind) -> int:
        return _IDENTITY_ID if kind is DomainKind.IDENTITY else self.domain(devfn, kind).domain_id

    def _make_domain(self, domain_id: int, root: int) -> PagingDomain:
        tables = SecondStageTables(self._memory, self._pool, root, self._levels)
        return PagingDomain(domain_id, tables, IovaAllocator(self._aw_bits), self._pool, self._ring)


def _place(entry: tuple[tuple[int, DomainKind], PagingDomain]) -> tuple[int, str]:
    (devfn, kind), _ = entry
    return devfn, kind.value
