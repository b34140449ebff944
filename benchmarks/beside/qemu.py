"""QEMU's own live migration, measured: a source and a destination on the link, plain or multifd.

The source's RAM is a file in memory (share=on) that was filled before: those bytes are what it sends, which the first
turn proves by reading the destination's memory back. Nothing else is set than the row says, but the bandwidth limit,
which is off. QEMU's `downtime` is the source's view; the guest stands still from STOP there to RESUME at the
destination, which is what counts here.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from qemu.qmp import EventListener

from benchmarks.beside.guest import PAGE, GuestLoad, GuestRam, build
from benchmarks.beside.link import HOSTS
from benchmarks.beside.qemu_credentials import CREDENTIALS, credentials
from benchmarks.beside.qemu_process import Qemu, QemuFailed, moment, running
from benchmarks.beside.sample import Sample
from tests.faults.network import Network
from vm_migration.loopback.ports import free_ports

_UNLIMITED: Final = 1 << 40
BELOW: Final = 1 << 20
"""The first MiB holds windows of devices, which no RAM shows through."""
_PIECE: Final = 64 << 20
_PORT: Final = 7500
_ENDS: Final = frozenset({"completed", "failed", "cancelled"})
_RATE_SECONDS: Final = 1.0
_RESUME_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class QemuMode:
    """How QEMU moves it: 0 channels are plain TCP; with `prealloc` the destination's memory is touched at its start.

    With `tls` both show certificates (tls-x509) and ask for the other's.
    """

    channels: int = 0
    prealloc: bool = False
    tls: bool = False

    @property
    def name(self) -> str:
        """How the table calls it."""
        how = f"multifd {self.channels}" if self.channels else "plain"
        return f"QEMU {how}{', TLS' if self.tls else ''}{', destination preallocated' if self.prealloc else ''}"


@dataclass(frozen=True, slots=True)
class QemuMachine:
    """What is moved: the file that is its RAM, its bytes, what its guest writes; and how long it may take."""

    ram: Path
    size: int
    load: GuestLoad
    limit_ms: int
    timeout_s: float


async def migrate(network: Network, folder: Path, machine: QemuMachine, mode: QemuMode, turn: int) -> Sample:
    """Start both, move the guest once, end both; what is refused or does not come to an end is told in the sample."""
    kernel = await asyncio.to_thread(build, folder, machine.load)
    guest = GuestRam(machine.ram)
    guest.forget()
    backend = f"memory-backend-file,id=pc.ram,size={machine.size},mem-path={machine.ram},share=on"
    common = _arguments(machine, kernel)
    begin = [*common, "-object", backend, "-machine", "memory-backend=pc.ram"]
    take = [*common, "-incoming", "defer", *(["-mem-prealloc"] if mode.prealloc else [])]
    if mode.tls:
        begin += ["-object", credentials(folder, "client")]
        take += ["-object", credentials(folder, "server")]
    try:
        async with (
            running(folder, "source", network.inside(HOSTS[0]), begin) as source,
            running(folder, "destination", network.inside(HOSTS[1]), take) as destination,
        ):
            await guest.begun()
            rate = await guest.rate(_RATE_SECONDS) if machine.load.rate else 0.0
            await _set_up((source, destination), machine, mode)
            sample = await _move(network, machine, source, destination)
            wrong = 0
            if turn == 0 and not machine.load.rate and sample.outcome == "completed":
                wrong = await _differing(folder, machine, destination)
    except (QemuFailed, TimeoutError) as error:
        return Sample(who=mode.name, turn=turn, outcome="failed", why=repr(error))
    finally:
        guest.close()
    return msgspec.structs.replace(
        sample, who=mode.name, turn=turn, guest_bytes_per_s=rate, mismatched_pages=wrong, ready_ms=destination.ready_ms
    )


def _arguments(machine: QemuMachine, kernel: Path) -> list[str]:
    size = str(machine.size >> 20)
    bare = ("-nodefaults", "-no-user-config", "-display", "none")
    return ["-M", "q35", "-accel", "tcg", "-m", size, *bare, "-kernel", str(kernel)]


async def _set_up(both: Sequence[Qemu], machine: QemuMachine, mode: QemuMode) -> None:
    for qemu in both:
        wanted = ["events", *(["multifd"] if mode.channels else [])]
        await qemu.ask("migrate-set-capabilities", capabilities=[{"capability": one, "state": True} for one in wanted])
        if mode.channels:
            await qemu.ask("migrate-set-parameters", multifd_channels=mode.channels)
        if mode.tls:
            await qemu.ask("migrate-set-parameters", tls_creds=CREDENTIALS, tls_hostname=HOSTS[1])
    await both[0].ask("migrate-set-parameters", max_bandwidth=_UNLIMITED, downtime_limit=machine.limit_ms)


async def _move(network: Network, machine: QemuMachine, source: Qemu, destination: Qemu) -> Sample:
    port = _PORT if network.has_cables else next(iter(free_ports(1)))
    uri = f"tcp:{network.address(HOSTS[1])}:{port}"
    with (
        source.client.listener(("MIGRATION", "STOP")) as told,
        destination.client.listener(("RESUME",)) as resumed,
    ):
        await destination.ask("migrate-incoming", uri=uri)
        used, began = source.cpu_seconds() + destination.cpu_seconds(), time.monotonic()
        await source.ask("migrate", uri=uri)
        try:
            async with asyncio.timeout(machine.timeout_s):
                status, stopped = await _end_of(told)
        except TimeoutError:
            return await _given_up(source, machine)
        if status != "completed":
            why = (await source.asked("query-migrate")).get("error-desc", "it does not say why")
            return Sample(who="", turn=0, outcome="failed", why=f"{status}: {why}")
        async with asyncio.timeout(_RESUME_SECONDS):
            back = moment(await resumed.get())
        total = time.monotonic() - began
        used = source.cpu_seconds() + destination.cpu_seconds() - used
    info = await _account(source)
    ram = info.get("ram")
    sent = ram if isinstance(ram, dict) else {}
    return Sample(
        who="", turn=0, outcome="completed", total_ms=1000 * total, downtime_ms=1000 * (back - stopped),
        own_downtime_ms=_number(info.get("downtime")), wire_bytes=int(_number(sent.get("transferred"))),
        cpu_seconds=used, rounds=int(_number(sent.get("dirty-sync-count"))),
    )  # fmt: skip


async def _end_of(told: EventListener) -> tuple[str, float]:
    """Return how it ended, and when the source's guest stopped last."""
    stopped = 0.0
    while True:
        event = await told.get()
        if event["event"] == "STOP":
            stopped = moment(event)
            continue
        data = event["data"]
        status = str(data["status"]) if isinstance(data, dict) else ""
        if status in _ENDS:
            return status, stopped


async def _given_up(source: Qemu, machine: QemuMachine) -> Sample:
    info = await source.asked("query-migrate")
    ram = info.get("ram")
    left = int(_number(ram.get("remaining"))) if isinstance(ram, dict) else 0
    await source.ask("migrate_cancel")
    why = f"after {machine.timeout_s:.0f} s {left >> 20} MiB were left"
    return Sample(who="", turn=0, outcome="did not complete", why=why)


async def _account(source: Qemu) -> dict[str, object]:
    """Return what QEMU tells of it: 7.2 says `completed` a moment before its totals are there."""
    async with asyncio.timeout(_RESUME_SECONDS):
        while not _number((info := await source.asked("query-migrate")).get("total-time")):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
    return info


async def _differing(folder: Path, machine: QemuMachine, destination: Qemu) -> int:
    """Count the pages that are not at the destination what the source's file holds."""
    await destination.ask("stop")
    saved = folder / "destination.ram"
    try:
        await destination.ask("pmemsave", val=BELOW, size=machine.size - BELOW, filename=str(saved))
        return await asyncio.to_thread(differing_pages, machine.ram, saved, machine.size - BELOW)
    finally:
        saved.unlink(missing_ok=True)


def differing_pages(ram: Path, saved: Path, size: int) -> int:
    """Count the pages of a saved file that are not what RAM's file holds above `BELOW`; all, where sizes differ."""
    here, there = np.memmap(ram, np.uint64, "r", BELOW), np.memmap(saved, np.uint64, "r")
    if len(here) != len(there):
        return size // PAGE
    wrong, step = 0, _PIECE // 8
    for start in range(0, len(here), step):
        same = here[start : start + step] == there[start : start + step]
        wrong += int(np.count_nonzero(~same.reshape(-1, PAGE // 8).all(axis=1)))
    return wrong


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
