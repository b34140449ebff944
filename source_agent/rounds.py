"""The rounds: harvest, announce, send pages, send device state, barrier; and once more when the guest stands still.

A round can be cut: its pages are no longer sent, what was not sent stays unsent, and the barrier says so. The last
round, with the guest stopped, cannot. Pages that are dirty again before their turn wait for a later round, which cuts
one too (vm_migration.transfer.hot_pages). Where a stream has nothing else to send for a second, it sends a heartbeat.

Order of a round, on which nothing lost rests: the harvest is taken first, the kernel's witness is read after it, the
pages are read after both. A page written between harvest and witness is in the next harvest, and its digest, which the
witness took away, is told again with it. A harvest within a round (source_agent.dirty_log) reads no witness: the one at
its end takes away the digests of pages that were written after they were sent.
"""

import asyncio
from enum import Enum, auto
from typing import Final

from source_agent.bulk_stream import BulkStream
from source_agent.destination_link import DestinationLink
from source_agent.device_flow import Batches, DeviceFlow
from source_agent.dirty_log import DirtyLog
from source_agent.offered import Offered
from source_agent.pacing import Pacer, frame_payload
from source_agent.page_flow import HEARTBEAT_AFTER, PageFlow, RoundCounts
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.port import Harvest, MachinePort
from vm_migration.transfer.convergence import RoundMeasurement
from vm_migration.transfer.digests import StatedDigests
from vm_migration.transfer.frames import DEVICE_STREAM, Ack
from vm_migration.transfer.hot_pages import WaitingPages
from vm_migration.transfer.outgoing import OutgoingRound, OutgoingStream, pages_per_frame
from vm_migration.transfer.sent_pages import SentPages, memory_for
from vm_migration.transfer.unsent import UnsentSet
from vm_migration.wire.bitmap_codec import encode_bitmap
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock
from vmm.vfio.device_records import DeviceRecord


class Devices(Enum):
    """What a round has to do with the devices' state."""

    AT_WORK = auto()
    """Take what can be read while they work."""
    STOPPED = auto()
    """Take all that is left."""
    NONE = auto()
    """Nothing: it was read to its end, or travels on another stream."""


class Rounds:
    """The page side of one attempt; `unsent` survives it, for the next attempt's sake."""

    def __init__(
        self,
        machine: MachinePort,
        ram: RamBlock,
        link: DestinationLink,
        lanes: tuple[tuple[OutgoingStream, BulkStream], ...],
        key: types_pb2.AttemptKey,
        *,
        verify: str,
        compression: str = "none",
    ) -> None:
        self.number = -1
        self.offered: Final = Offered()
        self.bulk_started_ns = 0
        self.bulk_ended_ns = 0
        self.counts = RoundCounts()
        self.witnessed = False
        self.pages_applied_ns = 0
        """When the destination had a round's pages, whatever of the devices' state was still to come."""
        self.devices: Final = DeviceFlow(machine)
        self.pacer: Final = Pacer()
        self._machine: Final = machine
        self._ram: Final = ram
        self._link: Final = link
        self._lanes: Final = lanes
        self._flows: Final = [PageFlow(bulk, compression, self.pacer, self.offered) for _, bulk in lanes]
        self.remembered: Final = SentPages(memory_for(ram.size))
        """What was sent of pages that are sent again, and how often that was at hand."""
        self._key: Final = key
        self._verify: Final = verify
        self._unsent: Final = UnsentSet(ram.pages)
        self._stated: Final = StatedDigests(ram.pages)
        self._dirty_log: Final = DirtyLog(machine, self._unsent, ram.pages)
        self._last_harvest_ns = loop_ns()
        self._holes: DirtyBitmap | None = None
        self._cut: Final = asyncio.Event()
        self._still = False
        """The guest stands still."""

    def limit(self, bytes_per_second: int) -> None:
        """Hold all streams together to a bandwidth from now on; 0 does not limit."""
        self.pacer.bytes_per_second = bytes_per_second
        self.devices.limit(bytes_per_second, len(self._lanes))
        pages = pages_per_frame(frame_payload(bytes_per_second, len(self._lanes)))
        for (stream, _), flow in zip(self._lanes, self._flows, strict=True):
            stream.pages_per_frame = pages
            flow.compressing.limit(pages * PAGE_SIZE)

    def cut(self) -> None:
        """Send no more pages until the guest stands still: end the round that is open, and send none in others."""
        if self.offered.cut_rounds:
            self._cut.set()

    @property
    def raw_bytes(self) -> int:
        """Bytes of the pages that were sent so far, before anything made them fewer."""
        return sum(flow.raw_bytes for flow in self._flows)

    @property
    def wire_bytes(self) -> int:
        """Bytes of frames sent so far, over all streams."""
        return sum(bulk.wire_bytes for _, bulk in self._lanes)

    @property
    def compression(self) -> str:
        """The codec of the frame that was compressed last, by the first stream that has compressed any, or none."""
        codecs = (flow.compressing.last for flow in self._flows)
        return next((codec.name.lower() for codec in codecs if codec is not None), "none")

    @property
    def dirty_pages(self) -> int:
        """Pages that the next round would have."""
        return self._unsent.dirty_pages

    @property
    def unhashed_bytes(self) -> int:
        """What would have to be hashed at a pause now, beside what is sent."""
        if self._verify == "none":
            return 0
        if self._verify == "full" or not self.witnessed:
            return self._ram.size
        return 0

    async def begin(self) -> None:
        """Log every write from here on, and take all pages as unsent."""
        await self._machine.start_tracking()
        self._unsent.harvest(DirtyBitmap.full(self._ram.pages))
        if self._verify == "auto":
            self.witnessed = await self._machine.report_writes() is not None
        self._last_harvest_ns = loop_ns()

    async def send_round(self) -> RoundMeasurement:
        """Send what is unsent, wait for the barriers, and harvest what was written meanwhile."""
        started_ns, wire_before = self._last_harvest_ns, self.wire_bytes
        counts = await self._send(None, devices=Devices.AT_WORK)
        harvest = await self._harvest()
        dirtied = (harvest.cpu | harvest.dma).count()
        now = loop_ns()
        self._last_harvest_ns = now
        unsent = self._unsent.dirty_pages - dirtied
        if unsent:
            self._holes = None  # some of them were not sent, and are holes still
        return RoundMeasurement(
            round=self.number,
            dirty_pages=counts.pages,
            sent_pages=counts.sent_pages,
            zero_pages=counts.zero_pages,
            compressed_pages=counts.compressed_pages,
            delta_pages=counts.delta_pages,
            wire_bytes=self.wire_bytes - wire_before,
            ms=(now - started_ns) / 1e6,
            dirtied_pages=dirtied,
            unsent_pages=unsent,
            held_back_pages=counts.held_back_pages,
            cpu_dirtied_pages=harvest.cpu.count(),
            dma_dirtied_pages=harvest.dma.count(),
            sending_ms=counts.sending_ns / 1e6,
        )

    async def send_last(self) -> RoundMeasurement:
        """Send everything that is left of a machine that stands still: pages, and its devices' state to the end."""
        started_ns, wire_before = loop_ns(), self.wire_bytes
        await self._harvest()
        counts = await self._send(None, devices=Devices.STOPPED)
        return RoundMeasurement(
            round=self.number,
            dirty_pages=counts.pages,
            sent_pages=counts.sent_pages,
            zero_pages=counts.zero_pages,
            compressed_pages=counts.compressed_pages,
            delta_pages=counts.delta_pages,
            wire_bytes=self.wire_bytes - wire_before,
            ms=(loop_ns() - started_ns) / 1e6,
            dirtied_pages=0,
            sending_ms=counts.sending_ns / 1e6,
        )

    async def send_digests(self) -> None:
        """Tell the digests that no witness vouches for, of RAM as it stands at the pause, in a round without pages."""
        missing = self._stated.missing()
        if self._verify != "none" and missing:
            await self._send(missing, devices=Devices.NONE)

    @property
    def verified_by(self) -> str:
        """What vouches for the digests: witness, full or none."""
        if self._verify == "none":
            return "none"
        return "witness" if self.witnessed else "full"

    async def _harvest(self) -> Harvest:
        """Take what was written since the last harvest; return all that was since the round before."""
        await self._dirty_log.take()
        harvest = self._dirty_log.closed()
        if not self.witnessed:
            return harvest
        written = await self._machine.report_writes()
        if written is None:
            self.witnessed = False
            self._stated.withdraw_all()
        else:
            self._stated.withdraw(written)
        return harvest

    async def _send(self, announced: DirtyBitmap | None, *, devices: Devices) -> RoundCounts:
        cut = self._cut if devices is Devices.AT_WORK else asyncio.Event()
        opened = self._unsent.open_round(len(self._lanes))
        self.number = opened.number
        self._still = devices is not Devices.AT_WORK
        self.counts = RoundCounts(pages=opened.bitmap.count())
        request = destination_pb2.OpenRoundRequest(
            key=self._key, round=opened.number, bitmap=encode_bitmap(opened.bitmap)
        )
        await self._link.open_round(request)
        digested = self._verify != "none" and self.witnessed
        holes = self._holes_for(opened.bitmap, reread=announced is not None)
        remembered = self._bases_for(opened.number)
        waiting = self._dirty_log.opened(opened.bitmap) if devices is Devices.AT_WORK else None
        over = asyncio.Event()
        parts: list[OutgoingRound] = []
        sharing: list[asyncio.Task[None]] = []
        async with asyncio.TaskGroup() as group:
            if waiting is not None:
                watching = self._dirty_log.watch(waiting, over, lambda: self.offered.cut_rounds)
                group.create_task(watching, name="pages that are dirty again")
            batches: Batches = asyncio.Queue(1)
            if devices is not Devices.NONE:
                reading = self.devices.read(batches, to_end=devices is Devices.STOPPED)
                group.create_task(reading, name="device state")
            for (stream, _), flow, share in zip(self._lanes, self._flows, opened.shares, strict=True):
                part = stream.round(
                    opened.number,
                    self._ram.words,
                    share,
                    holes=holes,
                    digested=digested,
                    digest_summed=self.offered.digest_summed,
                    announced=announced if stream.stream == 0 else None,
                    remembered=remembered,
                    waiting=waiting,
                )
                carried = devices if stream.stream == DEVICE_STREAM else Devices.NONE
                sending = self._send_share(flow, part, batches, carried, cut, waiting=waiting)
                sharing.append(group.create_task(sending, name=f"bulk stream {stream.stream}"))
                parts.append(part)
            await asyncio.wait(sharing)
            over.set()
        if waiting is not None:
            self.counts.held_back_pages = waiting.left_pages
        if digested:
            sent = opened.bitmap
            for part in parts:
                sent.remove(part.unsent)
            self._stated.state(sent)
        if announced is not None:
            self._stated.state(announced)
        return self.counts

    async def _send_share(
        self,
        flow: PageFlow,
        part: OutgoingRound,
        batches: Batches,
        devices: Devices,
        cut: asyncio.Event,
        *,
        waiting: WaitingPages | None,
    ) -> None:
        started_ns = loop_ns()
        if self.bulk_started_ns == 0:
            self.bulk_started_ns = started_ns
        flow.idle_ns = 0
        flow.compressing.begin()
        await flow.send(part, part.bodies(), self.counts, cut, still=self._still)
        if waiting is not None and waiting.any and part.sent_pages and self.offered.cut_rounds and not cut.is_set():
            await self._dirty_log.look(waiting)
            flow.compressing.begin()
        await flow.send(part, part.waited_bodies(), self.counts, cut, still=self._still)
        if devices is not Devices.NONE:
            await self._send_devices(flow, part, batches, devices, cut)
        ack = await (await flow.bulk.ask(part.barrier()))
        if devices is not Devices.STOPPED:
            self.pages_applied_ns = loop_ns()
        self._unsent.acknowledge(ack.place.round, ack.place.stream, part.unsent)
        self.bulk_ended_ns = loop_ns()
        self.counts.sending_ns = max(self.counts.sending_ns, self.bulk_ended_ns - started_ns - flow.idle_ns)

    async def _send_devices(
        self, flow: PageFlow, part: OutgoingRound, batches: Batches, devices: Devices, cut: asyncio.Event
    ) -> None:
        async with asyncio.TaskGroup() as group:
            answer = await flow.bulk.ask(part.heartbeat())
            group.create_task(self._await_pages(answer), name="pages applied")
            while (records := await self._next_records(flow, part, batches, answer)) is not None:
                for record in records:
                    await flow.send_frame(part.device(record), part, cut)

    async def _next_records(
        self, flow: PageFlow, part: OutgoingRound, batches: Batches, answer: "asyncio.Future[Ack]"
    ) -> tuple[DeviceRecord, ...] | None:
        while True:
            began_ns = loop_ns()
            try:
                async with asyncio.timeout(HEARTBEAT_AFTER):
                    return await batches.get()
            except TimeoutError:
                await flow.bulk.send(part.heartbeat())
            finally:
                if answer.done():  # whatever was sent has arrived
                    flow.idle_ns += max(0, loop_ns() - max(began_ns, self.pages_applied_ns))

    async def _await_pages(self, answer: "asyncio.Future[Ack]") -> None:
        """Note when the destination answers the heartbeat that followed the pages: the rest is the devices' time."""
        await answer
        self.pages_applied_ns = loop_ns()

    def _bases_for(self, number: int) -> SentPages | None:
        """Return what a round's deltas are made against; None where none are made, and then nothing is remembered."""
        if number and self.offered.deltas and all(flow.compressing.deltas_pay for flow in self._flows):
            return self.remembered
        self.remembered.clear()
        return None

    def _holes_for(self, sent: DirtyBitmap, *, reread: bool) -> DirtyBitmap:
        """Return the pages that were never touched, which need not be read.

        They are looked up once, after the first harvest; from then on a page that a harvest names is touched. Digests
        told at the pause look them up anew: a write that the dirty map missed must not pass for a hole.
        """
        if self._holes is None or reread:
            self._holes = self._untouched()
        else:
            self._holes.remove(sent)
        return self._holes

    def _untouched(self) -> DirtyBitmap:
        holes = DirtyBitmap.full(self._ram.pages)
        for first, count in self._ram.extents():
            holes.clear_run(first, count)
        return holes
