"""From a device's request to an address in RAM: structures, caches and walks together (semantics 4.5 to 4.7, 4.10).

A request meets the caches in QEMU's order. In legacy mode the IOTLB comes first; in scalable mode the context does,
because it names the PASID. So a translation holds, also a wrong one, until software invalidates it; a device whose
context was invalidated and blocked keeps its translations in legacy mode until the IOTLB is invalidated too.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from vmm.memory.guest_physical import GuestMemory
from vmm.memory.quantities import PAGE_SIZE, GuestPhysicalAddress
from vmm.viommu.batch_walk import BatchTranslation
from vmm.viommu.context import Binding, ContextReader, FirstStage, PassThrough, RootTable, SecondStage
from vmm.viommu.context_cache import ContextCache
from vmm.viommu.entry_rules import INTERRUPT_FIRST, INTERRUPT_LAST
from vmm.viommu.faults import Fault, FaultReason
from vmm.viommu.first_stage import FirstStageWalker
from vmm.viommu.iotlb import NO_PASID, Cached, Iotlb
from vmm.viommu.iova_tree import READABLE, WRITABLE
from vmm.viommu.registers import VtdConfiguration
from vmm.viommu.walk import SecondStageWalker, Translation


class Translator:
    """What a unit knows of translating; registers and listeners are its owner's.

    `walker` is the second stage's. Sources are devices of bus 0: a source id is a devfn.

    Raises:
        UnsupportedConfiguration: There is no such unit.
    """

    def __init__(self, memory: GuestMemory, configuration: VtdConfiguration) -> None:
        configuration.check()
        self.walker: Final = SecondStageWalker(
            memory,
            configuration.aw_bits,
            scalable=configuration.scalable,
            snoop_control=configuration.snoop_control,
            transient=configuration.device_iotlb and configuration.stale_tm,
        )
        self._first_stage: Final = FirstStageWalker(memory, configuration.aw_bits, huge=configuration.fs1gp)
        self._reader: Final = ContextReader(
            memory,
            configuration.aw_bits,
            first_stage=configuration.first_stage,
            device_iotlb=configuration.device_iotlb,
        )
        self._contexts: Final = ContextCache()
        self._iotlb: Final = Iotlb()

    def look_up(self, root: RootTable, devfn: int) -> Binding | Fault:
        """Return how the structures in RAM bind a device now, past every cache."""
        return self._reader.look_up(root, devfn)

    def translate(self, root: RootTable | None, devfn: int, iova: int, *, write: bool) -> Translation | Fault:
        """Translate a device's request through the caches; without a root, translation is off."""
        if root is None:
            return _identity(iova)
        pasid = NO_PASID
        binding: Binding | Fault | None = None
        if root.scalable:
            binding = self._bind(root, devfn)
            if isinstance(binding, Fault):
                return binding
            if isinstance(binding, PassThrough):
                return _identity(iova)
            if binding.pasid is not None:
                pasid = binding.pasid
        cached = self._iotlb.find(devfn, pasid, iova)
        if cached is not None:
            translated, mask, permission, _, first_stage, disabled = cached
            if permission & (WRITABLE if write else READABLE):
                address = GuestPhysicalAddress(translated | iova & mask)
                return Translation(address, mask, permission & READABLE != 0, permission & WRITABLE != 0)
            if not first_stage:
                return Fault(FaultReason.WRITE_PERMISSION if write else FaultReason.READ_PERMISSION, disabled)
        if binding is None:
            binding = self._bind(root, devfn)
        return self._walk(binding, devfn, iova, write=write)

    def translate_batch(self, binding: SecondStage, iovas: npt.NDArray[np.uint64], *, write: bool) -> BatchTranslation:
        """Translate many addresses of one binding by the tables in RAM, past every cache."""
        return self.walker.translate_batch(binding, iovas, write=write)

    def invalidate_contexts(self) -> None:
        """Forget every device's structures; a domain-selective invalidation is served as this."""
        self._contexts.invalidate()

    def invalidate_device(self, source: int, masked: int = 0) -> None:
        """Forget the structures of a device, and of those whose source id differs in masked bits only."""
        self._contexts.invalidate_device(source, masked)

    def invalidate_pasids(self, domain_id: int | None, pasid: int | None) -> None:
        """Forget PASID entries: of a domain or all, one PASID or all. Translations stay."""
        self._contexts.invalidate_pasids(domain_id, pasid)

    def invalidate_iotlb(
        self, domain_id: int | None = None, pasid: int | None = None, pages: tuple[int, int] | None = None
    ) -> None:
        """Forget translations: all, or of a domain; then of one PASID or all, within [first, last] or everywhere."""
        if domain_id is None:
            self._iotlb.invalidate()
        elif pasid is None:
            if pages is None:
                self._iotlb.invalidate_domain(domain_id)
            else:
                self._iotlb.invalidate_pages(domain_id, *pages)
        elif pages is None:
            self._iotlb.invalidate_pasid(domain_id, pasid)
        else:
            self._iotlb.invalidate_pasid_pages(domain_id, pasid, *pages)

    def reset(self) -> None:
        """Forget everything: a new root table, translation switched on or off, a reset, a loaded state."""
        self._contexts.reset()
        self._iotlb.invalidate()

    def _bind(self, root: RootTable, devfn: int) -> Binding | Fault:
        binding = self._contexts.get(devfn)
        if binding is not None:
            return binding
        found = self._reader.look_up(root, devfn)
        if not isinstance(found, Fault):
            self._contexts.put(devfn, found)
        return found

    def _walk(self, binding: Binding | Fault, devfn: int, iova: int, *, write: bool) -> Translation | Fault:
        if isinstance(binding, Fault):
            return binding
        if isinstance(binding, PassThrough):
            return _identity(iova)
        if isinstance(binding, FirstStage):
            found = self._first_stage.translate(binding, iova, write=write)
        else:
            found = self.walker.translate(binding, iova, write=write)
        if not isinstance(found, Fault):
            self._remember(binding, devfn, iova, found, write=write)
        return found

    def _remember(
        self, binding: SecondStage | FirstStage, devfn: int, iova: int, found: Translation, *, write: bool
    ) -> None:
        translated = found.translated & ~found.mask
        if translated <= INTERRUPT_LAST and translated + found.mask >= INTERRUPT_FIRST:
            return  # other addresses of this leaf fault, which a remembered leaf would not
        first_stage = isinstance(binding, FirstStage)
        writable = found.writable and (write or not first_stage)
        permission = (READABLE if found.readable else 0) | (WRITABLE if writable else 0)
        pasid = NO_PASID if binding.pasid is None else binding.pasid
        cached = Cached(translated, found.mask, permission, binding.domain_id, first_stage, binding.processing_disabled)
        self._iotlb.insert(devfn, pasid, iova, cached)


def _identity(iova: int) -> Translation:
    return Translation(GuestPhysicalAddress(iova), PAGE_SIZE - 1, readable=True, writable=True)
