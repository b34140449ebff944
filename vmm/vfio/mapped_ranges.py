"""The mappings that a container has, as far as the hypervisor knows."""

from collections.abc import Iterator
from typing import Final


class MappedRanges:
    """Ranges by IOVA; they never overlap, because the host refuses a mapping over another."""

    def __init__(self) -> None:
        self._sizes: Final[dict[int, int]] = {}

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Iterate over (iova, size), ascending."""
        return iter(sorted(self._sizes.items()))

    def add(self, iova: int, size: int) -> None:
        """Take note of a mapping."""
        self._sizes[iova] = size

    def remove(self, iova: int, size: int) -> None:
        """Take note that a range was unmapped: what lies within it is gone."""
        if self._sizes.get(iova) == size:
            del self._sizes[iova]
            return
        for first in [first for first in self._sizes if iova <= first < iova + size]:
            del self._sizes[first]
