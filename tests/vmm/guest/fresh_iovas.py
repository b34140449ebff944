"""The guest's DMA layer in the smallest form: fresh IOVAs for every buffer, as with nopt; it knows what is mapped."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from vmm.guest.dma import Buffer, MapFailed, Mapping
from vmm.memory.quantities import Iova


@dataclass
class Mapper:
    """`mapped` tells of each IOVA where it leads and how far; a full one refuses every map."""

    mapped: dict[int, tuple[int, int]] = field(default_factory=dict)
    next_iova: int = 1 << 32
    full: bool = False
    maps: int = 0

    def map(self, buffers: Sequence[Buffer]) -> list[Iova]:
        if self.full:
            raise MapFailed("No IOVA is left")
        iovas = []
        for address, length in buffers:
            assert (address | length) % 4096 == 0 < length
            self.mapped[self.next_iova] = (address, length)
            iovas.append(Iova(self.next_iova))
            self.next_iova += length + 4096
        self.maps += 1
        return iovas

    def unmap(self, mappings: Sequence[Mapping]) -> None:
        for iova, length in mappings:
            assert self.mapped.pop(iova)[1] == length

    def translate(self, iova: int, length: int) -> int:
        for base, (address, size) in self.mapped.items():
            if base <= iova and iova + length <= base + size:
                return address + iova - base
        raise AssertionError(f"DMA to 0x{iova:x}, which is not mapped")
