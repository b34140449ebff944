"""The host kernel of a rehearsal: the very objects of `vfio_host`, called without sockets between.

::

    vmm.vfio  --HostPort, Descriptor-->  HostInProcess  --calls-->  vfio_host.process.host.Host
                                             |  counts what a scenario asks about
                                             '- lets the next query or unmap fail, where a scenario says so

A batch is carried out in order, one answer each, as the real host does it (vfio_host.process.batch), but for the limit
of a message, which does not exist here.
"""

import contextlib
import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from vfio_host.interface import calls
from vfio_host.interface.calls import Answer, AnyCall, Failed, HostConfiguration, Number, Opened
from vfio_host.interface.numbers import DirtyPagesFlags, MapFlags, UnmapFlags
from vfio_host.io_page_table import IoPageTable
from vfio_host.process.host import Host
from vfio_host.process.iommu_files import ContainerFile, IommuFile
from vfio_host.process.open_file import OpenFile, Opening, Received, carried_out
from vfio_host.process.passthrough import PassthroughDevice
from vmm.vfio.host_port import Descriptor, OpenObject, unless_failed

_EVERYTHING: Final = (0, (1 << 64) - 1)


@dataclass(slots=True)
class Tally:
    """What is counted while `counting` is set, which is while dirty pages are tracked."""

    counting: bool = False
    unmaps: int = 0
    """Unmaps of a range; the unmapping of everything, when a view of the address space ends, is not one."""
    mappings: int = 0
    """Mappings made or unmade."""
    flushes: int = 0
    """IOTLB flushes by queries that belong to an unmap."""


class HostInProcess:
    """Implements `vmm.vfio.host_port.HostPort`, and `DoorbellWatcher` for the devices."""

    def __init__(
        self, configuration: HostConfiguration, *, by_file: bool = True, later_limit: int | None = None
    ) -> None:
        """Make it; without `by_file` mappings that are asked for by file are made by user address.

        `later_limit` is what each process but the first may have locked.
        """
        self.tally: Final = Tally()
        self._page_size: Final = configuration.page_size
        self._shift = 0
        self._by_file: Final = by_file
        self._ram_address = 0
        self._host: Final = Host(configuration, lambda process: later_limit if process else None)
        self._connection: Final = self._host.connect()
        self._files: Final[list[OpenFile]] = []
        self._page_tables: Final[dict[OpenFile, list[int]]] = {}
        self._failing: dict[str, int] = {}

    @property
    def devices(self) -> Sequence[PassthroughDevice]:
        """The host's devices, in the order of its configuration."""
        return tuple(self._host.devices.values())

    def connection(self, process: int = 0) -> Descriptor:
        """Return what a process opens paths on."""
        return _CalledDirectly(self, self._connection, process)

    def passed_to(self, descriptor: Descriptor, process: int) -> Descriptor:
        """Return a descriptor of this host as another process has it."""
        if not isinstance(descriptor, _CalledDirectly):
            raise TypeError(f"{type(descriptor).__name__} is no descriptor of this host")
        return descriptor.of_process(process)

    def open(self, path: str, process: int = 0) -> OpenObject:
        """Open a path."""
        opened = self.connection(process).open(calls.Open(path=path))
        if opened is None:
            raise AssertionError(f"Opening {path} gave no file")
        return opened

    def register_memory(self, address: int, length: int, descriptor: int, process: int = 0) -> None:
        """Tell what lies at a user address.

        A host of larger pages would have put it at a multiple of them; from here on it is told so.
        """
        self._shift = -address % self._page_size
        self._ram_address = address
        call = calls.RegisterMemory(vaddr=address + self._shift, length=length)
        self.connection(process).call(call, (descriptor,))

    def report_writes(self) -> bytes | None:
        """Return None: nobody bears witness here, and the oracle knows better."""
        return None

    def fail_next(self, what: str, times: int = 1) -> None:
        """Let the next so many of a kind, `query` or `unmap`, fail with EIO, before anything of them is done."""
        self._failing[what] = times

    def containers(self) -> Iterator[Sequence[tuple[int, int, int]]]:
        """Yield what each container that is open has mapped, as (iova, size, offset in RAM)."""
        for file in self._files:
            for table in self.tables_of(file):
                yield [(mapping.iova, mapping.length, mapping.offset) for mapping in table.overlapping(0, 1 << 64)]

    def tables_of(self, file: OpenFile) -> Iterator[IoPageTable]:
        """Yield the page tables that an open file holds; an address space without a hardware table has none."""
        if isinstance(file, IommuFile):
            yield from (file.context.table_of(number) for number in self._page_tables.get(file, ()))
        elif isinstance(file, ContainerFile) and file.container.table is not None:
            yield file.container.table

    def follow(self, file: OpenFile) -> None:
        """Keep a file that was opened in mind."""
        self._files.append(file)

    def forget(self, file: OpenFile) -> None:
        """Let a file go, as the kernel does at the last close."""
        with contextlib.suppress(ValueError):
            self._files.remove(file)
        self._page_tables.pop(file, None)
        file.release()

    def close(self) -> None:
        """Close everything that is open, the youngest first."""
        for file in reversed(self._files[:]):
            self.forget(file)

    def carry_out(self, file: OpenFile, call: AnyCall, received: Received) -> Answer | Opening:
        """Do one call; its errno is an answer."""
        if self._failing and self._fails(_kind(call)):
            return Failed(errno.EIO)
        answer = carried_out(file, self._shifted(self._addressed(call)), received)
        if isinstance(call, calls.HwptAlloc) and isinstance(answer, Number):
            self._page_tables.setdefault(file, []).append(answer.value)
        return answer

    def _fails(self, kind: str) -> bool:
        left = self._failing.get(kind, 0)
        if left:
            self._failing[kind] = left - 1
        return left > 0

    def _addressed(self, call: AnyCall) -> AnyCall:
        if self._by_file or not isinstance(call, calls.IoasMapFile):
            return call
        address = self._ram_address + call.start
        return calls.IoasMap(
            ioas_id=call.ioas_id, flags=call.flags, user_va=address, length=call.length, iova=call.iova
        )

    def _shifted(self, call: AnyCall) -> AnyCall:
        if not self._shift:
            return call
        match call:
            case calls.MapDma():
                return msgspec.structs.replace(call, vaddr=call.vaddr + self._shift)
            case calls.IoasMap():
                return msgspec.structs.replace(call, user_va=call.user_va + self._shift)
            case _:
                return call


class _CalledDirectly:
    """Implements `vmm.vfio.host_port.Descriptor` on an open file."""

    def __init__(self, host: HostInProcess, file: OpenFile, process: int = 0) -> None:
        self._host: Final = host
        self._file: Final = file
        self._process: Final = process

    def of_process(self, process: int) -> "_CalledDirectly":
        """Return the same open file as another process has it."""
        return _CalledDirectly(self._host, self._file, process)

    def batch(self, made: Sequence[AnyCall], descriptors: Sequence[int] = ()) -> Sequence[Answer]:
        """Make calls in order; a file that one of them opens is closed again, since nobody takes it."""
        received, answers = Received(descriptors, caller=self._process), list[Answer]()
        tally, flushed = self._host.tally, 0
        for place, call in enumerate(made):
            before = self._flushes() if tally.counting else 0
            outcome = self._host.carry_out(self._file, call, received)
            if tally.counting:
                flushed = self._flushes() - before if _kind(call) == "query" else flushed
                self._count(call, flushed if place and _belongs(made[place - 1], call) else 0)
                tally.mappings += _changes_mappings(call) and not isinstance(outcome, Failed)
            if isinstance(outcome, Opening):
                self._host.forget(outcome.file)
                outcome = Opened(outcome.id, 0)
            answers.append(outcome)
        return answers

    def call(self, call: AnyCall, descriptors: Sequence[int] = ()) -> Answer:
        """Make one call."""
        return unless_failed(call, self.batch((call,), descriptors)[0])

    def open(self, call: AnyCall) -> OpenObject | None:
        """Make one call that answers with a new descriptor, or with none."""
        outcome = unless_failed(call, self._host.carry_out(self._file, call, Received((), caller=self._process)))
        if not isinstance(outcome, Opening):
            return None
        self._host.follow(outcome.file)
        return OpenObject(outcome.id, _CalledDirectly(self._host, outcome.file, self._process))

    def close(self) -> None:
        """Close the file."""
        self._host.forget(self._file)

    def _count(self, call: AnyCall, flushes: int) -> None:
        tally = self._host.tally
        if _is_unmap_of_range(call):
            tally.unmaps += 1
            tally.flushes += flushes

    def _flushes(self) -> int:
        return sum(table.flushes for table in self._host.tables_of(self._file))


def _kind(call: AnyCall) -> str:
    """Return what kind of call a scenario can let fail."""
    match call:
        case calls.HwptGetDirtyBitmap() | calls.DmaLoggingReport():
            return "query"
        case calls.DirtyPages(flags=DirtyPagesFlags.GET_BITMAP):
            return "query"
        case calls.IoasUnmap() | calls.UnmapDma():
            return "unmap"
        case _:
            return ""


def _changes_mappings(call: AnyCall) -> bool:
    match call:
        case calls.MapDma(flags=flags):
            return MapFlags.VADDR not in flags
        case calls.UnmapDma(flags=of_unmap):
            return UnmapFlags.VADDR not in of_unmap
        case _:
            return isinstance(call, calls.IoasMap | calls.IoasMapFile | calls.IoasUnmap)


def _is_unmap_of_range(call: AnyCall) -> bool:
    match call:
        case calls.IoasUnmap(iova=iova, length=length):
            return (iova, length) != _EVERYTHING
        case calls.UnmapDma(flags=flags, size=size):
            return UnmapFlags.ALL not in flags and size < 1 << 63
        case _:
            return False


def _belongs(query: AnyCall, unmap: AnyCall) -> bool:
    """Tell whether a query was made for the sake of the unmap that follows it in its batch."""
    match query, unmap:
        case calls.HwptGetDirtyBitmap(iova=iova, length=length), calls.IoasUnmap():
            return (iova, length) == (unmap.iova, unmap.length)
        case _:
            return False
