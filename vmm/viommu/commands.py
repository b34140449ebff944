"""What a guest may ask the unit to forget, however it asks: by descriptors or by registers (semantics 4.11)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InvalidateContexts:
    """Context cache: one device and those that its function mask names; all when `devices` is None."""

    devices: tuple[int, int] | None

    def matches(self, source: int) -> bool:
        """Whether a device of this source id is meant."""
        if self.devices is None:
            return True
        sid, masked = self.devices
        return source & ~masked == sid & ~masked


@dataclass(frozen=True, slots=True)
class InvalidateIotlb:
    """Translations: of one domain or all, of one PASID or all, within [first, last] or everywhere."""

    domain_id: int | None
    pasid: int | None
    pages: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class InvalidatePasids:
    """PASID cache: of one domain or all, of one PASID or all."""

    domain_id: int | None
    pasid: int | None


@dataclass(frozen=True, slots=True)
class Wait:
    """Everything before is done: write a status word, raise the completion event, or both."""

    status: tuple[int, int] | None
    interrupt: bool


@dataclass(frozen=True, slots=True)
class Nothing:
    """A valid command without effect here.

    Either it is for a cache that this model does not have (device TLBs, interrupt entries), or it answers a page
    request, which no device of this model makes.
    """


Command = InvalidateContexts | InvalidateIotlb | InvalidatePasids | Wait | Nothing


def masked_devices(source: int, function_mask: int) -> InvalidateContexts:
    """Return the invalidation of a device and of those that differ from it in masked bits of the function only."""
    return InvalidateContexts((source, (0, 4, 6, 7)[function_mask]))


def page_range(address: int) -> tuple[int, int]:
    """Return the range of an address with its mask (AM) in bits 5:0; lower bits of the address are ignored."""
    size = 4096 << (address & 0x3F)
    first = address & ~0xFFF & ~(size - 1)
    return first, first + size - 1
