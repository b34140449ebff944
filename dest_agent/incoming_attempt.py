"""One machine that is arriving: its image, its streams, its ticket.

The image takes frames one at a time, whichever thread brings them, so that its checks and what they lead to are one
step. What needs nothing of it is done before, each stream's beside the others': a message's form and checksum are
judged, and compressed pages are decompressed; data of pages that are known to be expected are written meanwhile
(`expect`). So streams wait for each other only for as long as pages are put to their places and hashed. The devices'
state goes on to the machine's process in batches, one of which is on its way while the next one comes; then its stream
waits, and so does its source.
"""

import asyncio
import threading
from functools import partial
from typing import Final
from uuid import UUID

from dest_agent.arriving_machine import ArrivingMachine, BeforeReady, Finished, nothing_before_ready
from dest_agent.device_writing import DeviceWriting
from vm_migration.api.v1.destination_pb2 import FinishRequest
from vm_migration.errors import AttemptFailed, Refused, Unauthorised
from vm_migration.handover.arrival import ready, received_whole
from vm_migration.handover.custody import Custody
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.errors import MachineError
from vm_migration.telemetry import logs
from vm_migration.transfer.codecs import Decompressor
from vm_migration.transfer.errors import TransferError
from vm_migration.transfer.frames import DEVICE_STREAM, Ack, CompressedPages, Frame, PagesToCome
from vm_migration.transfer.incoming import IncomingImage
from vm_migration.transfer.verified_pages import VerifyResult
from vm_migration.wire.bitmap_codec import decode_bitmap
from vm_migration.wire.errors import WireError
from vm_migration.wire.frame import decode
from vmm.memory.ram_block import RamBlock
from vmm.process.control import MAX_DEVICE_DATA
from vmm.vfio.device_records import MAX_RECORD_BYTES, DeviceTotal

_BATCH: Final = MAX_DEVICE_DATA - MAX_RECORD_BYTES
"""Bytes of device state from which on they are passed on: one record more, and it is still one message."""


class IncomingAttempt(ArrivingMachine):
    """An attempt between PREPARED and READY whose pages come in rounds."""

    def __init__(
        self, custody: Custody, ram: RamBlock, source: str, ticket: bytes, *, streams: int, full: bool
    ) -> None:
        super().__init__(custody, source, ticket)
        self._turn: Final = threading.Lock()
        """Whoever asks or changes the image has it, for as long as one frame takes."""
        self._becoming_whole = False
        """It is being written that the last round is over."""
        self._ram: RamBlock | None = ram
        self._free_streams: Final = set(range(streams))
        self._devices: Final = DeviceWriting(custody.port)
        attempt = UUID(custody.record.attempt or "")
        self._image: IncomingImage | None = IncomingImage(ram.words, attempt, streams, full=full)
        self._decompressors: Final = tuple(Decompressor() for _ in range(streams))

    @property
    def stale_pages(self) -> int:
        """How many announced pages have not come."""
        return 0 if self._image is None else self._image.stale_pages

    def admit(self, ticket: bytes, stream: int) -> None:
        """Let a stream in, whose task logs of this attempt: the ticket must be its own, and each ordinal comes once.

        Raises:
            Unauthorised: It is not.
        """
        self.require_ticket(ticket)
        if stream not in self._free_streams:
            raise Unauthorised("stream-taken", f"Bulk stream {stream} was opened before, or is not of this attempt")
        self._free_streams.remove(stream)
        record = self.custody.record
        logs.bind(machine=record.machine, attempt=record.attempt, epoch=record.epoch)

    def open_round(self, number: int, bitmap: bytes) -> None:
        """Take a round's announcement.

        Raises:
            AttemptFailed: It does not follow from what came before, or the machine's process has ended; the attempt
                cannot go on.
        """
        self.heard = self._loop.time()
        self._require_process()
        if self.custody.record.whole or self._becoming_whole:
            raise Refused("already-whole", "The last round is over here; what came is not written again")
        try:
            announced = decode_bitmap(self._filling().pages, bitmap)
            with self._turn:
                self._filling().open_round(number, announced)
        except (TransferError, WireError, ValueError) as error:
            refusal = _bad("round", error)
        else:
            return
        raise refusal  # without a cause: see `_applied`

    async def take(self, message: bytes | memoryview, stream: int) -> Ack | None:
        """Take one message of a bulk stream; what an answer speaks of is in RAM and in the machine's devices.

        Raises:
            AttemptFailed: It is not the frame that must come next, or the machine refused what it said of a device;
                the attempt cannot go on.
        """
        frame = _decoded(message)
        data = None
        if isinstance(frame.body, CompressedPages):
            unpack = partial(_unpacked, frame.body, self._decompressors[stream])
            # The loop has other streams to serve meanwhile; one that is alone has none to wait for.
            data = await asyncio.to_thread(unpack) if len(self._decompressors) > 1 else unpack()
        answer = self._applied(frame, data, stream)
        await self.settle(answer, stream)
        return answer

    async def settle(self, answer: Ack | None, stream: int) -> None:
        """Pass device state on that came on a stream; before an answer is given, all of it, and into the devices.

        Raises:
            AttemptFailed: The machine refused it; the attempt cannot go on.
        """
        if stream == DEVICE_STREAM:
            await self._pass_on(all_of_it=answer is not None)

    def apply(self, message: bytes | memoryview, stream: int) -> Ack | None:
        """Take one message on any thread, of a stream one at a time; its answer is given once it is settled.

        Raises:
            AttemptFailed: It is not the frame that must come next; the attempt cannot go on.
        """
        frame = _decoded(message)
        body = frame.body
        data = _unpacked(body, self._decompressors[stream]) if isinstance(body, CompressedPages) else None
        return self._applied(frame, data, stream)

    def expect(self, coming: PagesToCome, stream: int) -> list[memoryview]:
        """Return where data that are still to be read belong; the caller releases the views. On any thread.

        Raises:
            AttemptFailed: It is not the frame that must come next; the attempt cannot go on.
        """
        self.heard = self._loop.time()
        try:
            with self._turn:
                return self._filling().expect(coming, stream)
        except TransferError as error:
            refusal = _bad("frame", error)
        raise refusal  # without a cause: see `_applied`

    def arrived(self, coming: PagesToCome, stream: int) -> None:
        """Take an expected frame whose data are in RAM, on any thread.

        Raises:
            AttemptFailed: The data do not have their digests; the attempt cannot go on.
        """
        try:
            with self._turn:
                self._filling().arrived(coming, stream)
                return
        except TransferError as error:
            refusal = _bad("frame", error)
        raise refusal  # without a cause: see `_applied`

    def wants_loop(self, stream: int) -> bool:
        """Say whether so much device state has come on a stream that it is worth a message to the machine."""
        return stream == DEVICE_STREAM and self._filling().device_bytes_waiting >= _BATCH

    def progress(self, stream: int) -> Ack:
        """Return how far a stream has come.

        Raises:
            Refused: It is not arriving any more.
        """
        with self._turn:
            return self._filling().progress(stream)

    def _applied(self, frame: Frame, data: memoryview | None, stream: int) -> Ack | None:
        self.heard = self._loop.time()
        try:
            with self._turn:
                return self._filling().apply(frame, stream, data)
        except TransferError as error:
            refusal = _bad("frame", error)
        # Without a cause, whose traceback would hold the mapping of RAM for as long as anybody holds the refusal.
        raise refusal

    async def _pass_on(self, *, all_of_it: bool) -> None:
        """Give the machine the records that came, once they are worth a message, or before an answer is given."""
        waiting = self._filling().device_bytes_waiting
        try:
            if waiting and (waiting >= _BATCH or all_of_it):
                await self._devices.give(self._filling().take_device_records())
            if all_of_it:
                await self._devices.settled()
        except MachineError as error:
            refusal = AttemptFailed(
                "device-state-refused", f"Machine did not take its devices' state: {error}", "Look at its log"
            )
        else:
            return
        raise refusal  # without a cause, and from a frame that knows no image: see `_applied`

    async def finish_as_asked(
        self, request: FinishRequest, before_ready: BeforeReady, source_sequence: int
    ) -> Finished:
        """Verify and load; see `finish`."""
        stated = request.device_data
        return await self.finish(
            pause=request.pause,
            number=request.round,
            state=request.machine_state,
            devices=DeviceTotal(stated.records, stated.data_bytes, stated.checksum),
            was_running=request.was_running,
            verify=request.verify,
            before_ready=before_ready,
            source_sequence=source_sequence,
        )

    async def finish(
        self,
        *,
        pause: int,
        number: int,
        state: bytes,
        devices: DeviceTotal,
        was_running: bool,
        verify: bool,
        before_ready: BeforeReady = nothing_before_ready,
        source_sequence: int = 0,
    ) -> Finished:
        """Verify and load; READY is durable when this returns with nothing mismatched.

        `before_ready` is called once the memory is whole, before anything of it is judged.

        A damaged image is not even loaded: its tables would be walked, and what they say of it is not why it is wrong.

        Raises:
            Refused: The round that the source names is not closed here, or its devices' state is not what came.
            AttemptFailed: The machine's process has ended, or `before_ready` failed; READY is not written.
            MachineError: The machine process refused the state.
        """
        self._require_process()
        if (refusal := self._refusal(number, devices)) is not None:
            raise refusal
        self._becoming_whole = True  # the journal takes its time, and what is judged below must be what was asked above
        try:
            await self.custody.write(lambda record: received_whole(record, pause=pause))
        finally:
            self._becoming_whole = False  # the record says so from here on, or it is not so
        await before_ready(self.custody.record)
        result, verify_ms = self._verified(asked=verify)
        if result is not None and not result.whole:
            return Finished(pause, result, 0.0, verify_ms)
        started = loop_ns()
        await self.custody.port.load(state, pause)
        load_ms = (loop_ns() - started) / 1e6
        await self.custody.write(
            lambda record: ready(record, pause=pause, was_running=was_running, source_sequence=source_sequence)
        )
        return Finished(pause, result, load_ms, verify_ms)

    # Apart from `finish`: what that raises must not hold the image, and with it the mapping of RAM, in its traceback.

    def _refusal(self, number: int, devices: DeviceTotal) -> Refused | None:
        image = self._filling()
        if not image.whole or image.round != number:
            text = f"Round {number} is not whole here: {image.stale_pages} pages are missing"
            return Refused("not-whole", text, "The source aborts and resumes")
        if image.device_total != devices:
            text = f"Devices' state that came ({image.device_total}) is not what the source sent ({devices})"
            return Refused("device-state-differs", text, "The source aborts and resumes")
        return None

    def _verified(self, *, asked: bool) -> tuple[VerifyResult | None, float]:
        """Return the comparison of every page, where it was asked for, and how many milliseconds it took."""
        started = loop_ns()
        result = self._filling().verify() if asked else None
        return result, (loop_ns() - started) / 1e6

    def let_go(self) -> None:
        """Give the mapping of the machine's RAM up."""
        self.let_go_of_ram()

    def let_go_of_ram(self) -> None:
        """Give the mapping of the machine's RAM up; frames that come later are refused.

        Streams may still know this attempt, and so may the traceback of what ended it: the mapping must not wait for
        either.
        """
        self._devices.abandon()
        if self._ram is not None:
            self._ram.close()
        self._ram, self._image = None, None

    def _filling(self) -> IncomingImage:
        if self._image is None:
            text = f"Attempt {self.custody.record.attempt} is no longer arriving here"
            raise Refused("not-arriving", text, "Ask for its state")
        return self._image


def _decoded(message: bytes | memoryview) -> Frame:
    try:
        return decode(message)
    except WireError as error:
        raise _bad("frame", error) from None


def _unpacked(body: CompressedPages, decompressor: Decompressor) -> memoryview:
    try:
        return decompressor.page_data_of(body)
    except TransferError as error:
        raise _bad("frame", error) from None


def _bad(what: str, error: Exception) -> AttemptFailed:
    return AttemptFailed(f"bad-{what}", f"Destination refused a {what}: {error}", "The machine goes on at its source")
