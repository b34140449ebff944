"""Where the driver keeps a device's binding in RAM: context entries, PASID directories and entries (semantics 4.5).

An entry is made valid by its first word, which is written last, and void by the same word, which is cleared first.
"""

from typing import Final

import msgspec

from vmm.guest.vtd_tables import TablePool
from vmm.memory.guest_physical import GuestMemory

_PRESENT: Final = 1
_LEGACY_PASS_THROUGH: Final = 2 << 2
_PGTT_SECOND_STAGE: Final = 2 << 6
_PGTT_PASS_THROUGH: Final = 4 << 6


class ContextState(msgspec.Struct, frozen=True, array_like=True):
    """What moves: context tables by root entry word, and PASID tables by device."""

    contexts: tuple[tuple[int, int], ...]
    pasids: tuple[tuple[int, int], ...]


class DeviceBindings:
    """The structures from the root table down to each device's binding."""

    def __init__(self, memory: GuestMemory, pool: TablePool, root: int, *, scalable: bool, levels: int) -> None:
        self._memory: Final = memory
        self._pool: Final = pool
        self._root: Final = root
        self._scalable: Final = scalable
        self._width: Final = levels - 2
        self._contexts: dict[int, int] = {}
        self._pasids: dict[int, int] = {}

    def prepare(self, devfn: int) -> bool:
        """Make what a device needs before its first binding; return whether a context entry became present.

        Raises:
            MapFailed: No page is left for a table.
        """
        half = devfn >> 7 if self._scalable else 0
        if half not in self._contexts:
            self._contexts[half] = self._pool.allocate()
            self._memory.write_u64(self._root + half * 8, self._contexts[half] | _PRESENT)
        if not self._scalable or devfn in self._pasids:
            return False
        directory, table = self._pool.allocate_pages(2)
        self._pasids[devfn] = table
        self._memory.write_u64(directory, table | _PRESENT)
        # The smallest directory, and requests without PASID use PASID 0.
        self._write(self._contexts[half] + (devfn & 0x7F) * 32, (directory | _PRESENT, 0, 0, 0))
        return True

    def bind(self, devfn: int, domain_id: int, second_stage: int | None) -> None:
        """Let a device's requests go through a domain's tables, or pass through."""
        if self._scalable:
            kind = _PGTT_PASS_THROUGH if second_stage is None else _PGTT_SECOND_STAGE | second_stage
            first = kind | self._width << 2 | _PRESENT
            self._write(self._pasids[devfn], (first, domain_id, 0, 0, 0, 0, 0, 0))
            return
        kind = _LEGACY_PASS_THROUGH if second_stage is None else second_stage
        self._write(self._contexts[0] + devfn * 16, (kind | _PRESENT, self._width | domain_id << 8))

    def block(self, devfn: int) -> None:
        """Let every request of a device fault."""
        place, count = (self._pasids[devfn], 8) if self._scalable else (self._contexts[0] + devfn * 16, 2)
        self._memory.write_u64(place, 0)
        self._memory.write(place, bytes(count * 8))

    def save(self) -> ContextState:
        """Return the state that moves."""
        return ContextState(tuple(sorted(self._contexts.items())), tuple(sorted(self._pasids.items())))

    def load(self, state: ContextState) -> None:
        """Continue from a state."""
        self._contexts, self._pasids = dict(state.contexts), dict(state.pasids)

    def _write(self, place: int, words: tuple[int, ...]) -> None:
        rest = b"".join(word.to_bytes(8, "little") for word in words[1:])
        self._memory.write(place + 8, rest)
        self._memory.write_u64(place, words[0])
