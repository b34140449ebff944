"""What the unit remembers of devices' structures, until software invalidates it (semantics 4.10).

An entry holds while its generation is the cache's. A global invalidation begins a new generation, which drops every
entry without visiting it; a device's own invalidation sets the generation of its entry to 0, which never holds.
A domain-selective invalidation is served as a global one. Faults are never remembered.

An entry stands for the context and the PASID entry together, as the context cache and the PASID cache of hardware do.
QEMU remembers the context only, and reads PASID entries from RAM on every access.
"""

from typing import Final

from vmm.viommu.context import Binding

GENERATION_LIMIT: Final = 0xFFFF_FFFF


class _Entry:
    __slots__ = ("binding", "generation")

    def __init__(self, binding: Binding, generation: int) -> None:
        self.binding = binding
        self.generation = generation


class ContextCache:
    """Bindings by source id."""

    def __init__(self) -> None:
        self.generation = 1
        self._entries: Final[dict[int, _Entry]] = {}

    def get(self, source: int) -> Binding | None:
        """Return what is remembered of a device."""
        entry = self._entries.get(source)
        return entry.binding if entry is not None and entry.generation == self.generation else None

    def put(self, source: int, binding: Binding) -> None:
        """Remember a device's binding. There is one entry a device, and as many devices as source ids."""
        self._entries[source] = _Entry(binding, self.generation)

    def invalidate(self) -> None:
        """Forget every device."""
        self.generation += 1
        if self.generation >= GENERATION_LIMIT:
            self.reset()

    def invalidate_device(self, source: int, masked: int = 0) -> None:
        """Forget a device, and those whose source id differs in masked bits only."""
        for candidate, entry in self._entries.items():
            if candidate & ~masked == source & ~masked:
                entry.generation = 0

    def invalidate_pasids(self, domain_id: int | None, pasid: int | None) -> None:
        """Forget devices bound through PASID entries: of a domain or all, with a PASID or any."""
        for entry in self._entries.values():
            binding = entry.binding
            if binding.pasid is not None and _means(binding, domain_id, pasid):
                entry.generation = 0

    def reset(self) -> None:
        """Forget everything and begin with the first generation."""
        self._entries.clear()
        self.generation = 1


def _means(binding: Binding, domain_id: int | None, pasid: int | None) -> bool:
    return (domain_id is None or binding.domain_id == domain_id) and (pasid is None or binding.pasid == pasid)
