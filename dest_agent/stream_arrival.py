"""One machine that is arriving by a stream of its own: its connections, and what it came to.

Its process takes the stream and writes its own memory; what is known here is what it says of that, and what its memory
is like afterwards. One connection that breaks ends all: a process that waits for the others would wait for ever.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Final

from dest_agent.arriving_machine import ArrivingMachine, BeforeReady, Finished
from vm_migration.api.v1.destination_pb2 import FinishRequest
from vm_migration.errors import AttemptFailed
from vm_migration.handover.arrival import ready, received_whole
from vm_migration.handover.custody import Custody
from vm_migration.link.machine_stream.carried import CarriedConnection, Far
from vm_migration.link.machine_stream.local_socket import LocalSocket, connect
from vm_migration.link.machine_stream.opening import OPENED, Opening
from vm_migration.link.machine_stream.order import OpeningOrder
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.errors import MachineRefused
from vm_migration.machine.stream_standing import Standing, at_destination
from vm_migration.telemetry import logs
from vm_migration.transfer.span_digests import compared, span_digests, span_pages
from vm_migration.transfer.verified_pages import VerifyResult

_CONNECT_SECONDS: Final = 5.0
_LOOK_MS: Final = 100
_WHOLE_SECONDS: Final = 600.0


class StreamArrival(ArrivingMachine):
    """An attempt between PREPARED and READY whose machine's process takes it in by itself."""

    def __init__(self, custody: Custody, source: str, ticket: bytes, *, path: Path, most: int) -> None:
        """`path` is where the machine's process listens, `most` how many connections it waits for."""
        super().__init__(custody, source, ticket)
        self._path: Final = path
        self._order = OpeningOrder(most)
        self._broken: Final[asyncio.Future[None]] = self._loop.create_future()

    @property
    def stale_pages(self) -> int:
        """Unknown here: which pages are still to come is the stream's own affair."""
        return 0

    def asked_about_by(self, host: str | None) -> None:
        """Note that a host has asked about it: a stream that goes directly is heard of by its source's questions alone.

        A source asks every second (source_agent.own_stream.heartbeat). None is a driver, which is not the source.
        """
        if host == self.source:
            self.heard = self._loop.time()

    async def carry(self, opening: Opening, far: Far) -> None:
        """Carry one connection until both its directions have ended.

        Raises:
            Unauthorised: It may not be opened, or not yet.
            MigrationError: It broke, or another one did.
        """
        self.require_ticket(opening.ticket)
        if self._broken.done():
            raise _of_another()
        self._order = self._order.asking(opening.ordinal, opening.role)
        record = self.custody.record
        logs.bind(machine=record.machine, attempt=record.attempt, epoch=record.epoch)
        try:
            with contextlib.closing(await self._connected()) as local:
                self._order = self._order.connecting()
                # Not in what is cancelled below: a call whose first message was can send no status (grpc.aio).
                await far.send(OPENED)
                name = f"{opening.ordinal} ({opening.role.name.lower()})"
                await self._unless_broken(CarriedConnection(local, _Heard(self, far), name))
        except BaseException:
            self.let_go()
            raise

    async def _unless_broken(self, connection: CarriedConnection) -> None:
        """Carry a connection until it is over, or another one breaks.

        Raises:
            MigrationError: It broke, or another one did.
        """
        carrying = asyncio.create_task(connection.run(), name="machine's connection")
        try:
            await asyncio.wait((carrying, self._broken), return_when=asyncio.FIRST_COMPLETED)
            _carried_to_its_end(carrying)
        finally:
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)  # what it failed with was told, or is an echo

    async def _connected(self) -> LocalSocket:
        try:
            return await connect(self._path, _CONNECT_SECONDS)
        except (OSError, TimeoutError) as error:
            text = f"The machine's process takes no stream in: {error}"
            raise AttemptFailed("stream-unavailable", text, "Look at its log") from None

    async def finish_as_asked(
        self, request: FinishRequest, before_ready: BeforeReady, source_sequence: int
    ) -> Finished:
        """See that the process holds everything and stands still, and compare its memory."""
        self._require_process()
        custody, pause = self.custody, request.pause
        started = loop_ns()
        await self._whole()
        load_ms = (loop_ns() - started) / 1e6
        await custody.write(lambda record: received_whole(record, pause=pause))
        await before_ready(custody.record)
        started = loop_ns()
        result = await self._verified(request) if request.verify else None
        verify_ms = (loop_ns() - started) / 1e6
        if result is not None and not result.whole:
            return Finished(pause, result, load_ms, verify_ms)
        await custody.port.load(b"", pause)
        await custody.write(
            lambda record: ready(record, pause=pause, was_running=request.was_running, source_sequence=source_sequence)
        )
        return Finished(pause, result, load_ms, verify_ms)

    async def _whole(self) -> None:
        """Wait until the process holds everything; its source's call ends the wait, as a rule.

        Raises:
            AttemptFailed: It came to something else, or to nothing.
        """
        try:
            async with asyncio.timeout(_WHOLE_SECONDS):
                await self._until_whole()
        except TimeoutError:
            text = f"The machine's process did not take it in within {_WHOLE_SECONDS:g} s"
            raise AttemptFailed("stream-stalled", text, "Look at its log") from None

    async def _until_whole(self) -> None:
        known = ""
        while True:
            state = await self.custody.port.stream(known, _LOOK_MS)
            standing = at_destination(state.status, state.run_status)
            if standing is Standing.WHOLE:
                return
            if standing is Standing.FAILED:
                text = f"The machine's process did not take it in: {state.status}, {state.run_status} {state.error}"
                raise AttemptFailed("stream-failed", text.strip(), "The machine goes on at its source")
            known = state.status

    async def _verified(self, request: FinishRequest) -> VerifyResult:
        """Compare the machine's memory as it lies here with what the source hashed.

        Raises:
            AttemptFailed: It cannot be compared.
        """
        try:
            ram = await self.custody.port.ram()
        except MachineRefused as error:
            text = f"The machine's memory cannot be compared here: {error}"
            raise AttemptFailed("not-verifiable", text, "Use --verify none") from None
        try:
            pages, stated = ram.pages, request.spans
            if (stated.pages, stated.span_pages) != (pages, span_pages(pages)):
                text = f"The source hashed {stated.pages} pages in spans of {stated.span_pages}, {pages} are here"
                raise AttemptFailed("not-verifiable", text, "The machine goes on at its source")
            here = await asyncio.to_thread(span_digests, ram.words, list(ram.extents()))
        finally:
            ram.close()
        return compared(here, stated.digests, pages)

    def let_go(self) -> None:
        """End every connection, and let none come any more."""
        if not self._broken.done():
            self._broken.set_result(None)


def _carried_to_its_end(carrying: "asyncio.Task[None]") -> None:
    if not carrying.done():
        raise _of_another()
    carrying.result()


def _of_another() -> AttemptFailed:
    return AttemptFailed("stream-broken", "Another connection of the machine's stream broke, or it is over")


class _Heard:
    """A call, of which the arrival hears that its source is there."""

    def __init__(self, arrival: StreamArrival, far: Far) -> None:
        self._arrival, self._far = arrival, far
        self.send = far.send
        self.finish = far.finish

    async def receive(self) -> bytes | None:
        self._arrival.heard = asyncio.get_running_loop().time()
        return await self._far.receive()
