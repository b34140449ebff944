"""What an invalidation does to the caches and to every address space behind the unit (semantics 4.12).

Caches forget first, so that whoever looks something up on the way finds what the guest's tables say now.
"""

from typing import Final

from vmm.viommu.address_space import DeviceAddressSpace
from vmm.viommu.commands import Command, InvalidateContexts, InvalidateIotlb, InvalidatePasids
from vmm.viommu.translation import Translator

WORK_LIMIT: Final = 1 << 17
"""Work that one write of the tail may make: a unit is a table read or four events to listeners, a command is 64.

What a guest posts beyond it is done once, for every device, after the last descriptor. The guest cannot tell: the
write has not returned.
"""
_COMMAND_WORK: Final = 64


class Invalidator:
    """Carries commands out, within the work of one register write."""

    def __init__(self, translator: Translator) -> None:
        self.spaces: Final[dict[int, DeviceAddressSpace]] = {}
        self._translator: Final = translator
        self._work_left = WORK_LIMIT

    def begin(self) -> None:
        """Begin with the whole of the work that a write of the tail may make."""
        self._work_left = WORK_LIMIT

    def end(self) -> None:
        """Do at once what was left undone, if something was."""
        if self._work_left <= 0:
            self._translator.reset()
            for space in self.spaces.values():
                space.switch()
                space.sync()

    def execute(self, command: Command) -> None:
        """Carry one command out, unless the work is used up."""
        if self._work_left > 0:
            before = self._work_done()
            self.invalidate(command)
            self._work_left -= _COMMAND_WORK + self._work_done() - before

    def invalidate(self, command: Command) -> None:
        """Carry one command out."""
        match command:
            case InvalidateContexts(devices=None):
                self._translator.invalidate_contexts()
                self.refresh_all()
            case InvalidateContexts(devices=(source, masked)):
                self._translator.invalidate_device(source, masked)
                for space in self.spaces.values():
                    if command.matches(space.devfn):
                        space.switch()
                        space.sync()
            case InvalidateIotlb():
                self._translator.invalidate_iotlb(command.domain_id, command.pasid, command.pages)
                for space in self.spaces.values():
                    space.invalidate(command)
            case InvalidatePasids():
                self._translator.invalidate_pasids(command.domain_id, command.pasid)
                for space in self.spaces.values():
                    space.invalidate_pasid(command)
            case _:
                pass

    def _work_done(self) -> int:
        return self._translator.walker.tables_read + sum(space.announced for space in self.spaces.values()) // 4

    def refresh_all(self) -> None:
        """Unmap everything, switch every address space, then follow the tables anew."""
        spaces = tuple(self.spaces.values())
        for space in spaces:
            space.unmap()
        for space in spaces:
            space.switch()
        for space in spaces:
            space.sync()
