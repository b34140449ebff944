"""Where a machine's process takes its own stream in by itself: a port of one attempt, under TLS.

::

    ListenForStream, by the attempt's source --> certificates into the process, and the source's subject as
    the only one that it lets in --> it listens --> the address

The port is the process's. QEMU listens there until it has all of the stream, and hangs up on whoever comes when its
connections are there; the port goes with the process where the attempt ends. QEMU shakes hands in its main loop, at
both ends, and a guest waits behind its own. So a process into which nothing comes, since somebody else has connected to
it and says nothing, is given up: its source's is free again then.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Final

from dest_agent.admission import streams_in
from dest_agent.holdings import Holdings
from dest_agent.settling import free
from dest_agent.stream_arrival import StreamArrival
from vm_migration.api.v1 import destination_pb2
from vm_migration.daemon.host_facts import TRANSPORT_NOT_OFFERED
from vm_migration.errors import AttemptFailed, MigrationError, Refused
from vm_migration.handover.arrival import given_up
from vm_migration.link.address import join_address
from vm_migration.link.subject_names import SUBJECT_UNLISTED, first_certificate, subject_names
from vm_migration.link.tls import TlsFiles
from vm_migration.machine.errors import MachineError
from vm_migration.telemetry import logs
from vmm.process.own_stream import Credentials, DirectAt, StreamTerms

_LOOK: Final = 1.0
_TO_COME: Final = 10.0
"""Seconds for the stream to begin; its source's process connects at once."""
_NOT_BEGUN: Final = frozenset({"none", "setup"})
_log: Final = logs.get(__name__)


class StreamDoor:
    """Opens the ports of one agent's arrivals."""

    def __init__(self, holdings: Holdings, host: str, tls: TlsFiles | None) -> None:
        """`host` is the address to listen at, in the migration network."""
        self._holdings: Final = holdings
        self._host: Final = host
        self._tls: Final = tls
        self._watching: Final[set[asyncio.Task[None]]] = set()

    async def open(
        self, arrival: StreamArrival, certificate: bytes | None, streams: int
    ) -> destination_pb2.ListenForStreamResponse:
        """Have an arrival's process listen for its source, which has shown a certificate (PEM), and return where.

        Raises:
            Refused: This host or the caller has no certificate, or theirs do not tell them apart.
            InvalidInput: This host's cannot be used.
            AttemptFailed: The process does not listen.
        """
        if self._tls is None or certificate is None:
            text = "Machines' processes take streams in directly under TLS alone, and there are no certificates here"
            raise Refused(TRANSPORT_NOT_OFFERED, text, "Configure [tls], or use --transport grpc")
        material = await asyncio.to_thread(self._tls.load)
        admits = subject_names(certificate)
        if set(admits) & set(subject_names(material.certificate)):
            text = f"Source and destination have one subject in their certificates: {admits[0]}"
            raise Refused(SUBJECT_UNLISTED, text, "Issue them with viaduct pki issue, or use --transport grpc")
        own = first_certificate(material.certificate)
        shown = Credentials(trusted=material.ca, certificate=own, key=material.key)
        terms = StreamTerms(channels=streams_in(streams))
        at = DirectAt(host=self._host, admits=admits, credentials=shown)
        try:
            port = await arrival.custody.port.accept_direct_stream(at, terms)
        except MachineError as error:
            text = f"The machine's process does not listen for its source: {error}"
            raise AttemptFailed("stream-unavailable", text, "Look at its log, or use --transport grpc") from error
        watching = asyncio.create_task(self._require_begun(arrival), name="beginning of a stream")
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)
        return destination_pb2.ListenForStreamResponse(address=join_address(self._host, port), certificate=own)

    async def _require_begun(self, arrival: StreamArrival) -> None:
        """Give an arrival up whose process does not answer, or into which nothing comes in time."""
        record, loop = arrival.custody.record, asyncio.get_running_loop()
        until = loop.time() + _TO_COME
        while loop.time() < until:
            await asyncio.sleep(_LOOK)  # that nothing comes has no event
            if self._holdings.arriving.get(record.attempt or "") is not arrival:
                return
            try:
                state = await arrival.custody.port.stream()
            except MachineError:
                break
            if state.status not in _NOT_BEGUN:
                return
        with contextlib.suppress(MigrationError):  # its journal is somebody else's, or says that it is whole
            async with self._holdings.alone(record.machine):
                if self._holdings.arriving.get(record.attempt or "") is arrival:
                    await self._give_up(arrival)

    async def _give_up(self, arrival: StreamArrival) -> None:
        custody, reason = arrival.custody, "Nothing comes into the machine's process: somebody else may hold it up"
        await custody.write(lambda record: given_up(record, reason=reason))
        _log.warning("arrival given up", machine=custody.record.machine, reason=reason)
        try:
            await free(custody, silent=True)
        except MachineError as error:  # the vigil over it sees to that
            _log.warning("arrival not taken away yet", machine=custody.record.machine, reason=str(error))
        finally:
            await self._holdings.let_go(custody.record.attempt or "")


def shown_by(facts: Mapping[str, Iterable[bytes]]) -> bytes | None:
    """Return the certificate (PEM) that a call's peer has shown, from what gRPC says of it; None without TLS."""
    found = list(facts.get("x509_pem_cert", ()))
    return found[0] if found else None
