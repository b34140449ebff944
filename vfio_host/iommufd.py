"""iommufd: IO address spaces, and the hardware page tables that show them to devices.

::

    Iommufd -- ids --+-- Ioas         mappings iova -> memory, the same in each of its tables
                     +-- Hwpt         one IO page table under an IOAS; dirty tracking when allocated with it
                     '-- BoundDevice  a device, attached to one Hwpt, or if mediated to an Ioas, or to nothing

It knows no sockets: the process layer turns descriptors into memory and answers into messages. Every rule and errno
is of semantics 3.4 and tests/golden/kernel-facts.json; a refused call leaves everything as it was, but for `unmap`.
Not modelled: IOAS_ALLOW_IOVAS, IOAS_COPY, OPTION, and the alignment of 1 that an address space without tables has.
"""

import errno
from dataclasses import dataclass, field
from typing import Final, TypeVar

from vfio_host.device_iommu import DeviceIommu
from vfio_host.errors import CallRefused
from vfio_host.interface.answers import Bitmap, IovaRanges
from vfio_host.interface.bitmaps import encoded_room
from vfio_host.interface.numbers import PAGE_SIZE, U64_MAX, GetDirtyFlags, HwptFlags, MapFlags
from vfio_host.io_page_table import IoPageTable
from vfio_host.iova_ranges import INTERRUPT_WINDOW, allowed, contains
from vfio_host.locked_memory import MayLock, require_room, unlimited
from vfio_host.memory_file import MemoryFile

CAPABILITY_DIRTY_TRACKING: Final = 1
_PERMISSIONS: Final = int(MapFlags.READ | MapFlags.WRITE)  # as a number: ~ of flags drops unknown bits


@dataclass(slots=True, eq=False)
class Hwpt:
    """One IO page table; `implicit` ones were made by attaching to the IOAS, and go with their last device."""

    ioas: "Ioas"
    table: IoPageTable
    dirty_tracking: bool
    address_width: int
    implicit: bool
    devices: int = 0


@dataclass(slots=True, eq=False)
class Ioas:
    """An IO address space: `shape` is the page table that no hardware uses, the model for all others."""

    shape: IoPageTable
    hwpts: list[Hwpt] = field(default_factory=list)
    mediated: int = 0
    """Mediated devices, which reach memory through the kernel and not through a page table of hardware."""


@dataclass(slots=True, eq=False)
class BoundDevice:
    """A device in this context."""

    iommu: DeviceIommu
    attached: Hwpt | Ioas | None = None


Object = Ioas | Hwpt | BoundDevice
Kind = TypeVar("Kind", Ioas, Hwpt, BoundDevice)


class Iommufd:
    """One open /dev/iommu, on a host with pages of `page_size` bytes.

    `may_lock` says what processes may have locked.
    """

    def __init__(self, page_size: int = PAGE_SIZE, *, may_lock: MayLock = unlimited) -> None:
        self._page_size: Final = page_size
        self._may_lock: Final = may_lock
        self._objects: dict[int, Object] = {}
        self._last_id = 0

    # ---- devices ----

    def bind(self, iommu: DeviceIommu) -> int:
        """Bring a device in and return its id. EPERM without interrupt remapping, unless the device is mediated."""
        if not iommu.interrupt_remapping and not iommu.mediated:
            raise CallRefused(errno.EPERM, "IOMMU does not remap interrupts, so a device could forge them")
        return self._add(BoundDevice(iommu))

    def unbind(self, dev_id: int) -> None:
        """Take a device out; it is detached first."""
        self.detach(dev_id)
        del self._objects[dev_id]

    def attach(self, dev_id: int, pt_id: int) -> IoPageTable:
        """Attach a device to an IOAS or HWPT, replacing what it had, and return the table that translates for it.

        An IOAS gives a device the first of the tables that were made in this way and suit it, or a new one, which
        tracks nothing. A mediated device has no table of its own (semantics 1.4). EINVAL when the device's IOMMU
        cannot use that table (try the next), EADDRINUSE when a mapping lies where the device may not reach.
        """
        device, target = self._get(dev_id, BoundDevice), self._objects.get(pt_id)
        if target is None:
            raise CallRefused(errno.ENOENT, f"No object {pt_id} to attach to")
        if isinstance(target, BoundDevice):
            raise CallRefused(errno.EINVAL, f"Object {pt_id} is a device, not a page table")
        if device.iommu.mediated:
            return self._attach_mediated(device, target)
        hwpt = self._implicit_hwpt(target, device.iommu) if isinstance(target, Ioas) else target
        _check_attach(device.iommu, hwpt)
        if hwpt not in hwpt.ioas.hwpts:
            hwpt.ioas.hwpts.append(hwpt)
        hwpt.devices += 1
        _leave(device)
        device.attached = hwpt
        return hwpt.table

    def detach(self, dev_id: int) -> None:
        """Take a device off its table; nothing happens when it has none."""
        _leave(self._get(dev_id, BoundDevice))

    def hw_info(self, dev_id: int) -> int:
        """IOMMU_GET_HW_INFO: return the capability bits. ENOENT for a mediated device, which has no IOMMU."""
        device = self._get(dev_id, BoundDevice)
        if device.iommu.mediated:
            raise CallRefused(errno.ENOENT, f"Device {dev_id} is mediated and has no IOMMU")
        return CAPABILITY_DIRTY_TRACKING if device.iommu.tracks else 0

    # ---- address spaces ----

    def ioas_alloc(self) -> int:
        """IOMMU_IOAS_ALLOC: return the id of an empty address space."""
        return self._add(Ioas(IoPageTable(page_size=self._page_size)))

    def iova_ranges(self, ioas_id: int) -> IovaRanges:
        """IOMMU_IOAS_IOVA_RANGES: everything, until a table narrows it and a device takes the interrupt window."""
        return IovaRanges(ranges=_allowed(self._get(ioas_id, Ioas)), alignment=self._page_size)

    def map(
        self,
        ioas_id: int,
        flags: MapFlags,
        memory: MemoryFile,
        *,
        offset: int,
        iova: int,
        length: int,
        process: int = 0,
        by_file: bool = False,
    ) -> None:
        """IOMMU_IOAS_MAP and MAP_FILE by a process, at a fixed IOVA, into every table of the address space.

        EINVAL for alignment, no permission or a forbidden range, EOVERFLOW for a wrap, EEXIST for an overlap,
        EOPNOTSUPP for an unknown flag, ENOMEM for more than the process may have locked.
        """
        self.check_map(ioas_id, flags, offset=offset, iova=iova, length=length)
        if offset < 0 or offset + length > memory.size:
            raise CallRefused(errno.EINVAL, f"File of {memory.size} bytes ends before offset 0x{offset:x} and {length}")
        readable, writable = MapFlags.READ in flags, MapFlags.WRITE in flags
        ioas = self._get(ioas_id, Ioas)
        if ioas.hwpts:
            require_room(self._may_lock, process, length)
        ioas.shape.map(
            iova, length, memory, offset, readable=readable, writable=writable, owner=process, by_file=by_file
        )
        for hwpt in ioas.hwpts:
            hwpt.table.map(iova, length, memory, offset, readable=readable, writable=writable)

    def check_map(self, ioas_id: int, flags: MapFlags, *, offset: int, iova: int, length: int) -> None:
        """Refuse what `map` would refuse before it looks at the memory, which the kernel does last (EFAULT)."""
        permissions = int(flags)
        if permissions & ~_PERMISSIONS:
            raise CallRefused(errno.EOPNOTSUPP, f"Flags {flags!r} are not known to IOAS_MAP")
        ioas = self._get(ioas_id, Ioas)
        unusable = length <= 0 or iova < 0 or (iova | length | offset) % self._page_size
        if max(iova, length) < U64_MAX and (not permissions or unusable):
            raise CallRefused(errno.EINVAL, f"Mapping of {length} bytes at 0x{iova:x} has no permission or alignment")
        if max(iova, length) >= U64_MAX or iova + length - 1 > U64_MAX:
            raise CallRefused(errno.EOVERFLOW, f"Mapping of {length} bytes at 0x{iova:x} passes the end of the space")
        if not contains(_allowed(ioas), iova, length):
            raise CallRefused(errno.EINVAL, f"IOVA 0x{iova:x} with {length} bytes is not within the allowed ranges")
        if ioas.shape.occupied(iova, length):
            raise CallRefused(errno.EEXIST, f"IOVA 0x{iova:x} with {length} bytes is mapped already")

    def unmap(self, ioas_id: int, iova: int, length: int) -> int:
        """IOMMU_IOAS_UNMAP: return how many bytes went.

        ENOENT when a named range holds no mapping, or cuts one; those before the one that is cut are gone then, as
        in the kernel. EOVERFLOW for a wrap, EINVAL for no length.
        """
        ioas = self._get(ioas_id, Ioas)
        if (iova, length) == (0, U64_MAX):
            return _unmap(ioas, 0, U64_MAX + 1)
        if max(iova, length) >= U64_MAX or iova + length - 1 > U64_MAX:
            raise CallRefused(errno.EOVERFLOW, f"Unmap of {length} bytes at 0x{iova:x} passes the end of the space")
        if length <= 0:
            raise CallRefused(errno.EINVAL, "Unmap of no bytes")
        cut = ioas.shape.cut_by(iova, length)
        if cut is not None:
            _unmap(ioas, iova, max(cut.iova - iova, 0))
            raise CallRefused(errno.ENOENT, f"Unmap at 0x{iova:x} cuts the mapping at 0x{cut.iova:x}")
        gone = _unmap(ioas, iova, length)
        if gone == 0:
            raise CallRefused(errno.ENOENT, f"Nothing is mapped at 0x{iova:x}, {length} bytes")
        return gone

    def change_process(self, process: int) -> None:
        """IOMMU_IOAS_CHANGE_PROCESS: count every mapping of the context as a process's from here on.

        EINVAL when one of them is by user address, ENOMEM when they are more than it may have locked, and then none
        has changed (iommufd_ioas_change_process).
        """
        spaces = [each for each in self._objects.values() if isinstance(each, Ioas)]
        mappings = [mapping for space in spaces for mapping in space.shape.overlapping(0, U64_MAX + 1)]
        if not all(mapping.by_file for mapping in mappings):
            raise CallRefused(errno.EINVAL, "A mapping is by user address, which no other process has")
        pinned = [each for space in spaces if space.hwpts for each in space.shape.overlapping(0, U64_MAX + 1)]
        require_room(self._may_lock, process, sum(each.length for each in pinned if each.owner != process))
        for mapping in mappings:
            mapping.owner = process

    def locked_bytes(self, process: int) -> int:
        """Return what of a process's locked memory its mappings here are: those of spaces with a page table."""
        shapes = [each.shape for each in self._objects.values() if isinstance(each, Ioas) and each.hwpts]
        mappings = (mapping for shape in shapes for mapping in shape.overlapping(0, U64_MAX + 1))
        return sum(mapping.length for mapping in mappings if mapping.owner == process)

    # ---- hardware page tables ----

    def hwpt_alloc(self, flags: HwptFlags, dev_id: int, pt_id: int) -> int:
        """IOMMU_HWPT_ALLOC: return the id of a table of an IOAS for a device's IOMMU.

        EOPNOTSUPP for unknown flags, and for DIRTY_TRACKING where the IOMMU has none; EINVAL where the parent is no
        IOAS or the IOMMU offers no second stage.
        """
        device, ioas = self._get(dev_id, BoundDevice), self._get(pt_id, Ioas)
        if device.iommu.mediated:
            raise CallRefused(errno.ENOENT, f"Device {dev_id} is mediated and has no IOMMU")
        if int(flags) & ~int(HwptFlags.DIRTY_TRACKING):
            raise CallRefused(errno.EOPNOTSUPP, f"Flags {flags!r} are not known to HWPT_ALLOC")
        wanted = HwptFlags.DIRTY_TRACKING in flags
        if wanted and not device.iommu.tracks:
            raise CallRefused(errno.EOPNOTSUPP, f"IOMMU of device {dev_id} does not track dirty pages")
        if not device.iommu.second_stage:
            raise CallRefused(errno.EINVAL, f"IOMMU of device {dev_id} has no second-stage tables")
        hwpt = self._new_hwpt(ioas, device.iommu, dirty_tracking=wanted, implicit=False)
        ioas.hwpts.append(hwpt)
        return self._add(hwpt)

    def table_of(self, hwpt_id: int) -> IoPageTable:
        """Return the page table of an HWPT, for those who look inside."""
        return self._get(hwpt_id, Hwpt).table

    def set_dirty_tracking(self, hwpt_id: int, *, enable: bool) -> None:
        """IOMMU_HWPT_SET_DIRTY_TRACKING; enabling clears the bits. EOPNOTSUPP for a table without the flag."""
        self._tracking_hwpt(hwpt_id).table.set_tracking(enable=enable)

    def dirty_bitmap(
        self, hwpt_id: int, flags: GetDirtyFlags, iova: int, length: int, page_size: int, *, limit: int | None = None
    ) -> Bitmap:
        """IOMMU_HWPT_GET_DIRTY_BITMAP: bits of what was written; unless NO_CLEAR, they are reset.

        What is reset costs one IOTLB flush.
        The kernel walks until the first hole and answers with success and what it found: behind the hole everything
        is reported clean and keeps its bits. So it does while tracking is off (iommu_read_and_clear_dirty drops what
        its walk returns). A hypervisor asks by mapping. EOPNOTSUPP for unknown flags or a table without tracking,
        EOVERFLOW for a wrap, EINVAL for alignment; ENOMEM when the answer takes more than `limit` bytes, and nothing
        is reset then.
        """
        if int(flags) & ~int(GetDirtyFlags.NO_CLEAR):
            raise CallRefused(errno.EOPNOTSUPP, f"Flags {flags!r} are not known to HWPT_GET_DIRTY_BITMAP")
        table = self._tracking_hwpt(hwpt_id).table
        if iova + ((length - 1) & U64_MAX) > U64_MAX:
            raise CallRefused(errno.EOVERFLOW, f"Query of {length} bytes at 0x{iova:x} passes the end of the space")
        unusable = iova < 0 or length <= 0 or page_size < 1 or page_size & (page_size - 1)
        if unusable or (iova | length) % max(page_size, self._page_size):
            raise CallRefused(errno.EINVAL, f"Query of {length} bytes at 0x{iova:x} by {page_size} is not aligned")
        walked = table.contiguous(iova, length) if table.tracking else 0
        bitmap = table.read_dirty(iova, length, page_size, walked=walked)
        if limit is not None and encoded_room(bitmap) > limit:
            raise CallRefused(errno.ENOMEM, f"Bitmap of {length} bytes at 0x{iova:x} does not fit its answer")
        if GetDirtyFlags.NO_CLEAR not in flags:
            table.clear_dirty(iova, walked)
            table.flushes += 1
        return bitmap

    def destroy(self, object_id: int) -> None:
        """IOMMU_DESTROY. EBUSY while something uses the object, and for devices, which leave by closing."""
        target = self._objects.get(object_id)
        if target is None:
            raise CallRefused(errno.ENOENT, f"No object {object_id} to destroy")
        users = 1
        if isinstance(target, Ioas):
            users = len(target.hwpts) + target.mediated
        elif isinstance(target, Hwpt):
            users = target.devices
        if users:
            raise CallRefused(errno.EBUSY, f"Object {object_id} is in use")
        if isinstance(target, Hwpt):
            target.ioas.hwpts.remove(target)
        del self._objects[object_id]

    # ---- inside ----

    def _add(self, new: Object) -> int:
        self._last_id += 1
        self._objects[self._last_id] = new
        return self._last_id

    def _get(self, object_id: int, kind: type[Kind]) -> Kind:
        found = self._objects.get(object_id)
        if found is None:
            raise CallRefused(errno.ENOENT, f"No object {object_id}")
        if not isinstance(found, kind):
            raise CallRefused(errno.EINVAL, f"Object {object_id} is no {kind.__name__}")
        return found

    def _tracking_hwpt(self, hwpt_id: int) -> Hwpt:
        hwpt = self._get(hwpt_id, Hwpt)
        if not hwpt.dirty_tracking:
            raise CallRefused(errno.EOPNOTSUPP, f"Page table {hwpt_id} was not allocated with dirty tracking")
        return hwpt

    def _attach_mediated(self, device: BoundDevice, target: Hwpt | Ioas) -> IoPageTable:
        if isinstance(target, Hwpt):
            raise CallRefused(errno.EINVAL, "A mediated device attaches to an address space, not to a page table")
        _leave(device)
        target.mediated += 1
        device.attached = target
        return target.shape

    def _implicit_hwpt(self, ioas: Ioas, iommu: DeviceIommu) -> Hwpt:
        for hwpt in ioas.hwpts:
            if hwpt.implicit and hwpt.address_width <= iommu.address_width:
                return hwpt
        if not iommu.second_stage:
            raise CallRefused(errno.EINVAL, "IOMMU has no second-stage tables")
        return self._new_hwpt(ioas, iommu, dirty_tracking=False, implicit=True)

    def _new_hwpt(self, ioas: Ioas, iommu: DeviceIommu, *, dirty_tracking: bool, implicit: bool) -> Hwpt:
        table = IoPageTable(iommu.leaf_size, self._page_size)
        last = (1 << iommu.address_width) - 1
        mappings = list(ioas.shape.overlapping(0, U64_MAX + 1))
        if mappings and mappings[-1].end - 1 > last:
            raise CallRefused(errno.EADDRINUSE, f"A mapping is beyond {iommu.address_width} bits")
        for mapping in mappings:
            table.map(
                mapping.iova,
                mapping.length,
                mapping.memory,
                mapping.offset,
                readable=mapping.readable,
                writable=mapping.writable,
            )
        return Hwpt(ioas, table, dirty_tracking, iommu.address_width, implicit)


def _allowed(ioas: Ioas) -> tuple[tuple[int, int], ...]:
    width, devices = 64, 0
    for hwpt in ioas.hwpts:
        width = min(width, hwpt.address_width)
        devices += hwpt.devices
    return allowed((1 << width) - 1, interrupt_window=devices > 0)


def _check_attach(iommu: DeviceIommu, hwpt: Hwpt) -> None:
    unfit = hwpt.address_width > iommu.address_width or (hwpt.dirty_tracking and not iommu.tracks)
    if unfit or not iommu.second_stage:
        raise CallRefused(errno.EINVAL, "Page table does not suit the device's IOMMU")
    low, high = INTERRUPT_WINDOW
    if hwpt.ioas.shape.occupied(low, high - low + 1):
        raise CallRefused(errno.EADDRINUSE, "A mapping lies in the interrupt window")


def _leave(device: BoundDevice) -> None:
    left, device.attached = device.attached, None
    match left:
        case Ioas():
            left.mediated -= 1
        case Hwpt():
            left.devices -= 1
            if left.implicit and left.devices == 0:
                left.ioas.hwpts.remove(left)


def _unmap(ioas: Ioas, iova: int, length: int) -> int:
    for hwpt in ioas.hwpts:
        hwpt.table.unmap(iova, length)
    return ioas.shape.unmap(iova, length)
