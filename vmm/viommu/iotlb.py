"""Translations that the unit remembers, until software invalidates them (semantics 4.10).

A translation is found by frame, source, level and PASID. At most 1024 are held: one more empties the IOTLB first.
Pass-through is never held, and no fault is.
"""

from typing import Final, NamedTuple

CAPACITY: Final = 1024
NO_PASID: Final = 1 << 20
"""Stands for the PASID of legacy mode; PASIDs have 20 bits."""

_OF_ALL: Final = (1 << 64) - 1


class Cached(NamedTuple):
    """A leaf: where its first address leads, its size less one, and READABLE | WRITABLE.

    A first-stage leaf is writable only when its dirty bit was set: a write that comes first must still set it.
    """

    translated: int
    mask: int
    permission: int
    domain_id: int
    first_stage: bool
    processing_disabled: bool


class Iotlb:
    """A dictionary of frame and level for each source and PASID."""

    def __init__(self) -> None:
        self._held = 0
        self._frames: Final[dict[int, dict[int, Cached]]] = {}

    def __len__(self) -> int:
        return self._held

    def find(self, source: int, pasid: int, iova: int) -> Cached | None:
        """Return the remembered leaf around an address: one look-up for each size of leaf, the smallest first."""
        frames = self._frames.get(source << 21 | pasid)
        if frames is None:
            return None
        return frames.get(iova >> 10 & -4 | 1) or frames.get(iova >> 19 & -4 | 2) or frames.get(iova >> 28 & -4 | 3)

    def insert(self, source: int, pasid: int, iova: int, cached: Cached) -> None:
        """Remember the leaf around an address."""
        if self._held >= CAPACITY:
            self.invalidate()
        frames = self._frames.setdefault(source << 21 | pasid, {})
        key = _key(iova, cached.mask)
        self._held += key not in frames
        frames[key] = cached

    def invalidate(self) -> None:
        """Forget everything."""
        self._frames.clear()
        self._held = 0

    def invalidate_domain(self, domain_id: int) -> None:
        """Forget a domain."""
        self._drop(domain_id, None, 0, _OF_ALL, of_first_stage=None)

    def invalidate_pages(self, domain_id: int, first: int, last: int) -> None:
        """Forget leaves of a domain that touch [first, last], and all that the first stage translated for it."""
        self._drop(domain_id, None, first, last, of_first_stage=False)
        self._drop(domain_id, None, 0, _OF_ALL, of_first_stage=True)

    def invalidate_pasid(self, domain_id: int, pasid: int) -> None:
        """Forget a PASID of a domain."""
        self._drop(domain_id, pasid, 0, _OF_ALL, of_first_stage=None)

    def invalidate_pasid_pages(self, domain_id: int, pasid: int, first: int, last: int) -> None:
        """Forget first-stage leaves of a PASID that touch [first, last]; those of the second stage stay."""
        self._drop(domain_id, pasid, first, last, of_first_stage=True)

    def _drop(self, domain_id: int, pasid: int | None, first: int, last: int, *, of_first_stage: bool | None) -> None:
        for owner, frames in tuple(self._frames.items()):
            if pasid is not None and owner & (NO_PASID << 1) - 1 != pasid:
                continue
            dropped = [
                key
                for key, cached in frames.items()
                if cached.domain_id == domain_id
                and (of_first_stage is None or cached.first_stage == of_first_stage)
                and _first(key) <= last
                and _first(key) + cached.mask >= first
            ]
            for key in dropped:
                del frames[key]
            self._held -= len(dropped)
            if not frames:
                del self._frames[owner]


def _key(iova: int, mask: int) -> int:
    level = (mask.bit_length() - 3) // 9
    return iova >> 9 * level + 3 << 2 | level


def _first(key: int) -> int:
    level = key & 3
    return key >> 2 << 9 * level + 3
