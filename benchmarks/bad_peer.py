"""One bad peer, as a process of its own: it does one thing to some addresses until its standard input ends.

::

    half-open   so many connections that say nothing, opened in turns, each again as soon as it is closed
    stranger    handshakes without a certificate, 25 a second on each of so many connections
    caller      a call as soon as the last one was answered, on each of so many channels, with a viewer's certificate

It writes a line when it has begun, and at the end what it did as one JSON document. It runs at the lowest priority: on
a machine that it shares with those whom it bothers, what it costs itself must not count, and what it costs them must.
"""

import argparse
import asyncio
import contextlib
import json
import os
import ssl
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vm_migration.api.v1 import types_pb2
from vm_migration.api.v1.machine_pb2_grpc import HostStub
from vm_migration.errors import MigrationError
from vm_migration.link.address import split_address
from vm_migration.link.call import call
from vm_migration.link.channel import open_channel
from vm_migration.link.tls import TlsFiles

KINDS: Final = ("half-open", "stranger", "caller")
_LEAST_PRIORITY: Final = 19
_CALL_SECONDS: Final = 30.0
_OPENING_SECONDS: Final = 5.0
"""As long as a connection may be silent: so they are closed in turns too, and not all at once."""
_HANDSHAKE_EVERY: Final = 0.04
"""Unpaced, what it costs itself would count on a machine of few processors, whatever its priority."""


@dataclass(slots=True)
class Tally:
    """What it did; `held` is how many connections were open on average from the first moment when all were."""

    count: int
    done: int = 0
    failed: int = 0
    _open: int = 0
    _full_at: float | None = None
    _since: float = 0.0
    _area: float = 0.0
    full: asyncio.Event = field(default_factory=asyncio.Event)

    def opened(self, change: int) -> None:
        """Note that a connection was opened, or has ended."""
        now = time.monotonic()
        self._area += self._open * (now - self._since)
        self._since = now
        self._open += change
        self.done += change > 0
        if self._full_at is None and self._open == self.count:
            self._full_at, self._area = now, 0.0
            self.full.set()

    def document(self) -> dict[str, float]:
        """Return it for whoever started this."""
        self.opened(0)
        held = 0.0 if self._full_at is None else self._area / max(self._since - self._full_at, 1e-9)
        return {"done": self.done, "failed": self.failed, "held": held}


async def half_open(address: tuple[str, int], tally: Tally, after: float) -> None:
    """Hold one connection open after so many seconds, and say nothing."""
    await asyncio.sleep(after)
    while True:
        reader, writer = await asyncio.open_connection(*address)
        tally.opened(1)
        with contextlib.suppress(OSError):
            await reader.read()
        tally.opened(-1)
        tally.failed += 1
        writer.transport.abort()


async def stranger(address: tuple[str, int], tally: Tally) -> None:
    """Shake hands without a certificate, again and again."""
    due = time.monotonic()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(*address, ssl=context)
            try:
                await reader.read()
            finally:
                writer.transport.abort()
        tally.done += 1
        tally.full.set()
        due = max(due + _HANDSHAKE_EVERY, time.monotonic())
        await asyncio.sleep(due - time.monotonic())  # its pace


async def caller(address: str, tally: Tally, tls: TlsFiles, host: str) -> None:
    """Call as fast as answers come."""
    async with open_channel(address, tls, host) as channel:
        ask = HostStub(channel).DescribeHost
        while True:
            try:
                await call(ask, types_pb2.Empty(), peer=address, deadline=_CALL_SECONDS)
                tally.done += 1
            except MigrationError:
                tally.failed += 1
            tally.full.set()


async def _main(arguments: argparse.Namespace) -> None:
    tally = Tally(arguments.count)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks = []
    for number in range(arguments.count):
        host, address = arguments.address[number % len(arguments.address)].split("=")
        match arguments.kind:
            case "half-open":
                work = half_open(split_address(address), tally, _OPENING_SECONDS * number / arguments.count)
            case "stranger":
                work = stranger(split_address(address), tally)
            case _:
                files = TlsFiles(arguments.pki / "ca.pem", arguments.certificate, arguments.key)
                work = caller(address, tally, files, host)
        tasks.append(asyncio.create_task(work, name=f"{arguments.kind} {number}"))
    await tally.full.wait()
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    await reader.read()
    document = tally.document()
    for task in tasks:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    broken = [repr(each) for each in ended if not isinstance(each, asyncio.CancelledError)]
    sys.stdout.write(json.dumps({**document, "broken": broken}) + "\n")


def main() -> None:
    """Do it until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bad_peer", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("address", nargs="+", help="HOST=address:port")
    parser.add_argument("--count", type=int, required=True, help="connections or channels, over all addresses")
    parser.add_argument("--pki", type=Path)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    arguments = parser.parse_args()
    os.nice(_LEAST_PRIORITY)
    asyncio.run(_main(arguments))


if __name__ == "__main__":
    main()
