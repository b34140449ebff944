"""The invalidation queue in guest RAM (semantics 4.11).

A descriptor that means nothing, that cannot be read, or whose status word cannot be written stops the queue with the
head on it. So does a tail beyond the queue.
"""

from collections.abc import Callable
from typing import Final

from vmm.memory.guest_physical import AccessFault, GuestMemory
from vmm.viommu.commands import Command
from vmm.viommu.descriptors import DescriptorType, Words, decode


class InvalidationQueue:
    """The unit's side of the queue: base, size, head and tail in descriptors."""

    def __init__(self, memory: GuestMemory) -> None:
        self.base = 0
        self.size = 0
        self.head = 0
        self.tail = 0
        self.wide = False
        self.enabled = False
        self.last_type = DescriptorType.NONE
        self._memory: Final = memory

    def start(self, address: int, *, size_order: int, wide: bool) -> None:
        """Begin at an address with 2^(order + 8) descriptors of 16 bytes, or half as many of 32."""
        self.base, self.wide = address, wide
        self.size = 1 << size_order + 8 - wide
        self.head = 0
        self.enabled, self.last_type = True, DescriptorType.NONE

    def stop(self) -> bool:
        """End, if the queue is empty and its last descriptor was a wait; return whether it ended."""
        if not self.enabled or self.head != self.tail or self.last_type is not DescriptorType.WAIT:
            return False
        self.head, self.enabled = 0, False
        return True

    @property
    def head_register(self) -> int:
        """The head as IQH shows it."""
        return self.head << (5 if self.wide else 4)

    def process(self, execute: Callable[[Command], bool]) -> bool:
        """Execute descriptors from the head to the tail; False when one is in error, with the head on it."""
        if self.tail >= self.size:
            return False
        while self.head != self.tail:
            words = self._fetch()
            if words is None:
                self.last_type = DescriptorType.NONE
                return False
            self.last_type, command = decode(words, wide=self.wide)
            if command is None or not execute(command):
                return False
            self.head = (self.head + 1) % self.size
        return True

    def _fetch(self) -> Words | None:
        try:
            if self.wide:
                first, second, third, fourth = self._memory.words(self.base + self.head * 32, 4).tolist()
                return first, second, third, fourth
            first, second = self._memory.words(self.base + self.head * 16, 2).tolist()
        except AccessFault:
            return None
        return first, second, 0, 0
