"""What one bad peer does to somebody else's migration: in turns one in quiet, one beside it, one with it elsewhere.

What counts is how long a person waits: from the order to the end, getting ready included. Beside each row stands what
the bad peer did meanwhile (benchmarks.bad_peer), so that one which did nothing cannot pass for one that was borne.

All of it is on one machine, whose processors the bad peer uses too, and so do those whom it bothers. So the same is
also done to agents of another site, which have no part in the migration: what that costs is what sharing a machine
costs, and only what comes on top is lost because the bad peer came to these agents.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import psutil

from benchmarks.figures import Row, ratios
from benchmarks.rig import GIB, MIB, Rig, rig
from benchmarks.throughput import write_image
from orchestrator.demo.scene import HOSTS, SITE
from orchestrator.policy import MigrationPolicy, Transport
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import issue
from vm_migration.link.tls import TlsFiles

HALF_OPEN: Final = 500
MOST: Final = 1.1
_RAM: Final = GIB
_LITTLE: Final = 64 * MIB
"""Of the other site's machine, which nobody moves."""
_BEGIN_SECONDS: Final = 30.0
_HELD: Final = 0.95
"""Of the half-open connections, so many must have been open on average: those that were closed are opened again."""


@dataclass(frozen=True, slots=True)
class BadPeer:
    """One kind of it, as the table calls it; `count` connections or channels."""

    kind: str
    count: int
    name: str

    def require_bad(self, told: dict[str, float]) -> None:
        """Check that it did what it should.

        Raises:
            RuntimeError: It did not.
        """
        did = told["held"] >= _HELD * self.count if self.kind == "half-open" else told["done"] > 0
        if not did:
            raise RuntimeError(f"{self.name}: it did too little: {told}")


SILENT: Final = BadPeer("half-open", HALF_OPEN, f"{HALF_OPEN} half-open connections at the destination")
STRANGER: Final = BadPeer("stranger", 4, "100 handshakes a second without a certificate at the destination")
CALLER: Final = BadPeer("caller", 8, "a viewer that calls without end at both hosts")
_ROWS: Final[Sequence[tuple[BadPeer, Transport]]] = (
    (SILENT, "grpc"),
    (SILENT, "direct"),
    (STRANGER, "grpc"),
    (CALLER, "grpc"),
)


def _ratio(peer: BadPeer, transport: Transport) -> str:
    return f"migration beside {peer.name}, {transport}, over one in quiet"


def _elsewhere_ratio(peer: BadPeer, transport: Transport) -> str:
    return f"{_ratio(peer, transport)}: with the same at another site's agents on the machine"


RATIOS: Final = tuple(name(peer, transport) for peer, transport in _ROWS for name in (_ratio, _elsewhere_ratio))
"""The names of the rows that say what each costs, and what it costs where it comes to others."""


async def measure(folder: Path, runs: int) -> list[Row]:
    """Return what each bad peer costs, as a ratio to the quiet one of each pair, and both times."""
    image = folder / "bad-peers.img"
    await asyncio.to_thread(write_image, image, 3, _RAM)
    document: dict[str, object] = {
        "name": "bothered",
        "memory": {"size": _RAM, "image": str(image)},
        "guest": {"cpu_dirty_rate": 0, "working_set": 64 * MIB},
    }
    rows: list[Row] = []
    bystander = document | {"memory": {"size": _LITTLE}}
    async with rig(document, insecure=False) as site, rig(bystander, insecure=False) as other:
        here, there = [_Bothered(each, await asyncio.to_thread(_viewer, each)) for each in (site, other)]
        for peer, transport in _ROWS:
            rows.extend(await _turns(here, there, peer, transport, runs))
    image.unlink()
    return rows


def _viewer(site: Rig) -> TlsFiles:
    tls = site.configuration.tls
    if tls is None:
        raise RuntimeError("The site has no certificates")
    return issue(tls.ca.parent, Identity(SITE, Role.VIEWER, "bad-peer"))


@dataclass(frozen=True, slots=True)
class _Bothered:
    """A site, and a certificate of it that a bad peer may show."""

    site: Rig
    viewer: TlsFiles


async def _turns(here: _Bothered, there: _Bothered, peer: BadPeer, transport: Transport, runs: int) -> list[Row]:
    quiet: list[_Moved] = []
    beside: list[_Moved] = []
    elsewhere: list[_Moved] = []
    did: list[float] = []
    beginning = 0.0
    for turn in range(runs + 1):
        order: list[tuple[list[_Moved], _Bothered | None]] = [(beside, here), (quiet, None), (elsewhere, there)]
        for at in range(len(order)):
            moved, bothered = order[(turn + at) % len(order)]  # another one begins each turn
            if bothered is None:
                await asyncio.sleep(beginning)  # as long as the others wait for their peer: all begin alike
                moved.append(await _moved(here.site, transport))
                continue
            begun = time.monotonic()
            async with _bothering(peer, _victims(bothered.site, peer, transport), bothered.viewer) as told:
                beginning = time.monotonic() - begun
                moved.append(await _moved(here.site, transport))
            if bothered is here:
                did.append(told["done"])
    # The first turn warms the machine's memory up, and opens the port of the direct streams.
    rows = _rows(peer, transport, quiet[1:], beside[1:], did[1:])
    whole = [tuple(one.whole for one in moved[1:]) for moved in (elsewhere, quiet)]
    return [*rows, Row(_elsewhere_ratio(peer, transport), "ratio", ratios(*whole))]


def _rows(
    peer: BadPeer, transport: Transport, quiet: Sequence["_Moved"], beside: Sequence["_Moved"], did: Sequence[float]
) -> list[Row]:
    what = f"{peer.name}, {transport}"
    ready = (
        f"of it getting ready {median(one.ready for one in beside):.2f} s, {median(one.ready for one in quiet):.2f} s"
    )
    note = f"it did {min(did):.0f} to {max(did):.0f} of them in each migration; {ready} in quiet"
    whole = [tuple(one.whole for one in moved) for moved in (quiet, beside)]
    return [
        Row(f"migration in quiet, before or after: {what}", "s", whole[0]),
        Row(f"migration beside {what}", "s", whole[1], note=note),
        Row(_ratio(peer, transport), "ratio", ratios(whole[1], whole[0]), must=MOST, better="lower", note=note),
    ]


@dataclass(frozen=True, slots=True)
class _Moved:
    """How long a person waited, and how much of it until the destination was ready; in seconds."""

    whole: float
    ready: float


async def _moved(site: Rig, transport: Transport) -> _Moved:
    begun = time.monotonic()
    attempt = await site.move(MigrationPolicy(transport=transport, compression="none"))
    took = time.monotonic() - begun
    if attempt.outcome != "completed" or attempt.report is None or attempt.report.pages_mismatched:
        raise RuntimeError(f"Migration ended with {attempt.outcome}: {attempt.error}")
    return _Moved(took, attempt.prepare_ms / 1000)


def _victims(site: Rig, peer: BadPeer, transport: Transport) -> list[str]:
    """Return whom it bothers, as HOST=address, in the migration that comes next."""
    source, destination = HOSTS[site.at], HOSTS[1 - site.at]
    hosts = site.configuration.host
    if peer.kind == "caller":
        return [f"{source}={hosts[source].source}", f"{destination}={hosts[destination].dest}"]
    if transport == "grpc":
        return [f"{destination}={hosts[destination].dest}"]
    direct = _other_ports(hosts[destination].dest)
    return [f"{destination}={address}" for address in direct or [hosts[destination].dest]]


def _other_ports(address: str) -> list[str]:
    """Return where else the process listens that listens there: its direct streams, once one was asked for."""
    host, _, port = address.rpartition(":")
    listening = [
        (each.pid, each.laddr.port)
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.pid and each.laddr
    ]
    agent = next(pid for pid, bound in listening if bound == int(port))
    return [f"{host}:{bound}" for pid, bound in listening if pid == agent and bound != int(port)]


@contextlib.asynccontextmanager
async def _bothering(peer: BadPeer, victims: Sequence[str], viewer: TlsFiles) -> AsyncIterator[dict[str, float]]:
    """Have a bad peer at work while the context is entered; what it did is told after it."""
    told: dict[str, float] = {}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.bad_peer", peer.kind, *victims, "--count", str(peer.count)),
        *("--pki", str(viewer.ca.parent), "--certificate", str(viewer.certificate), "--key", str(viewer.key)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        if process.stdout is None:
            raise RuntimeError("It has no output")
        async with asyncio.timeout(_BEGIN_SECONDS):
            if await process.stdout.readline() != b"begun\n":
                raise RuntimeError(f"{peer.name}: it did not begin")
        yield told
        async with asyncio.timeout(_BEGIN_SECONDS):
            said, _ = await process.communicate(b"")
        document = json.loads(said)
        if document.pop("broken"):
            raise RuntimeError(f"{peer.name}: {said.decode()}")
        told.update(document)
        peer.require_bad(told)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
