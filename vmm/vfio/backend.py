"""What type1 and iommufd have in common, as a container uses it (semantics 1.2)."""

from typing import Final, Protocol

from vfio_host.interface.calls import Answer, AnyCall, Bitmap, Failed
from vfio_host.interface.numbers import U64_MAX, MapFlags
from vmm.vfio.host_port import Descriptor


class BitmapTooLarge(Exception):
    """The hypervisor refuses a range whose bitmap is over the container's limit, before the kernel is asked."""


class Backend(Protocol):
    """How one kind of container says the same things. What it tells of the host it has asked the host for."""

    @property
    def descriptor(self) -> Descriptor:
        """What its calls are made on."""

    @property
    def page_size(self) -> int:
        """The host's: mappings are whole pages of it, and a dirty bit stands for one."""

    @property
    def max_bitmap_bytes(self) -> int:
        """How large a dirty bitmap may be."""

    @property
    def perpetual(self) -> bool:
        """Whether its tracker reports everything that is mapped, always, and answers at the unmapping too."""

    @property
    def tracks(self) -> bool:
        """Whether it offers a tracker at all (`dirty_pages_supported`)."""

    def map_call(self, iova: int, offset: int, size: int, *, writable: bool) -> AnyCall:
        """Map a run of RAM at an IOVA."""

    def unmap_call(self, iova: int, size: int) -> AnyCall:
        """Take a mapping away."""

    def unmap_all_calls(self) -> tuple[AnyCall, ...]:
        """Take every mapping away."""

    def query_calls(self, iova: int, size: int, *, clear: bool) -> tuple[AnyCall, ...]:
        """Read the dirty bits of a range; those of several answers are one set."""

    def unmap_with_bits_call(self, iova: int, size: int) -> AnyCall:
        """Read the dirty bits and take the mapping away in one call, which only a perpetual one has.

        Raises:
            BitmapTooLarge: Nothing was asked of the kernel; the mapping stays.
        """

    def bits_of(self, answer: Answer) -> Bitmap | None:
        """Return the bitmap of a query's answer."""

    def nothing_to_unmap(self, failure: Failed) -> bool:
        """Tell whether an unmap failed only because there was nothing."""

    def set_tracking(self, *, on: bool) -> None:
        """Switch the tracker.

        Raises:
            HostCallFailed: The state is as it was.
        """

    def batch_descriptors(self) -> tuple[int, ...]:
        """Return the descriptors that its calls refer to."""


READ_ONLY: Final = MapFlags.READ
READ_WRITE: Final = MapFlags.READ | MapFlags.WRITE

NO_LIMIT: Final = U64_MAX
"""`max_bitmap_bytes` of a backend without limit: QEMU's value, whose product below just misses 2^64 (semantics 1.2)."""


def bitmap_bytes(size: int, page_size: int) -> int:
    """Return how many bytes the bitmap of a range takes: whole words of 64 pages (semantics 3.1)."""
    pages = -(-size // page_size)
    return -(-pages // 64) * 8


def describable_bytes(max_bitmap_bytes: int, page_size: int) -> int:
    """Return how much RAM a bitmap of so many bytes describes, in 64 bits: 8 TiB for type1 at 4 KiB (semantics 6.2)."""
    return max_bitmap_bytes * 8 * page_size & U64_MAX
