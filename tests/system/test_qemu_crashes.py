"""Whichever agent is killed at whichever moment: a real QEMU's guest counts on, at one host, without gap or repeat.

Both hosts' machines print into one file. Two guests that run would each write the counts of the other once more.
"""

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from tests.qemu_guest.build import Guest
from tests.qemu_guest.serial import counts
from tests.system.attempts import DEADLINE, Attempt, machine, policy, started
from tests.system.daemons import Daemon
from tests.system.qemu_machines import PROGRAM, SLOW, counted, guest_that_counts, offer, specification
from tests.system.site import Site

PATIENT_MS = 10_000
"""A downtime limit of which three times outlasts whatever is held here."""
GATES = ("before_handoff", "before_ready")


@dataclass
class Held:
    """One attempt, and what keeps it where it is."""

    site: Site
    attempt: Attempt
    machine: str
    frozen: list[int] = field(default_factory=list)

    @property
    def source(self) -> str:
        return self.attempt.source

    @property
    def destination(self) -> str:
        return self.attempt.destination

    def folder(self, gate: str) -> Path:
        return self.site.folder / gate

    async def reached(self, gate: str) -> None:
        await until((self.folder(gate) / "reached").exists, f"{gate} was not reached")

    async def states(self, host: str, state: str) -> None:
        await until(lambda: self.site.states(host, self.machine)[-1:] == [state], f"{host} did not come to {state}")

    def open(self, gate: str) -> None:
        (self.folder(gate) / "armed").unlink(missing_ok=True)
        (self.folder(gate) / "reached").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # nobody waits
            fifo = os.open(self.folder(gate) / "fifo", os.O_WRONLY | os.O_NONBLOCK)
            os.write(fifo, b"go\n")
            os.close(fifo)

    def freeze(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        self.frozen.append(pid)

    def thaw(self) -> None:
        while self.frozen:
            with contextlib.suppress(ProcessLookupError):  # it was the one that was killed
                os.kill(self.frozen.pop(), signal.SIGCONT)

    def beside(self, host: str) -> int:
        """Return the process that stands beside a host's QEMU, without which nothing can be asked of that."""
        return self.site.instance(host, self.machine).host.pid


async def until(holds: Callable[[], bool], otherwise: str) -> None:
    try:
        async with asyncio.timeout(DEADLINE):
            while not holds():  # noqa: ASYNC110 - files have no event
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(otherwise) from None


async def sending(held: Held) -> None:
    await held.attempt.in_the_middle()


async def at_the_gate(held: Held) -> None:
    await held.reached("before_handoff")


async def whole(held: Held) -> None:
    held.open("before_handoff")
    await held.reached("before_ready")


async def ready(held: Held) -> None:
    await whole(held)
    held.freeze(held.beside(held.source))
    held.open("before_ready")
    await held.states(held.destination, "READY")


async def released(held: Held) -> None:
    await ready(held)
    async with asyncio.timeout(DEADLINE):  # READY is answered after it is durable
        await held.attempt.agents.describe_incoming(held.destination, held.attempt.key)
        await held.attempt.agents.describe_incoming(held.destination, held.attempt.key)
    beside = held.frozen.pop()
    held.freeze(held.site.dest(held.destination).pid)
    os.kill(beside, signal.SIGCONT)
    await held.states(held.source, "RELEASED")


async def activating(held: Held) -> None:
    await ready(held)
    beside = held.frozen.pop()
    held.freeze(held.beside(held.destination))
    os.kill(beside, signal.SIGCONT)
    await held.states(held.destination, "ACTIVATING")


Hold = Callable[[Held], Awaitable[None]]


@pytest.fixture(scope="module")
def guest(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Guest:
    return guest_that_counts(pytestconfig, tmp_path_factory)


@pytest.fixture
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="viaduct-") as name:
        folder, sections = Path(name), f"{offer(PROGRAM)}[hooks]\n"
        for gate in GATES:
            place = folder / gate
            place.mkdir()
            os.mkfifo(place / "fifo")
            command = f"test -e {place}/armed || exit 0; exec 3<>{place}/fifo; : > {place}/reached; read -r word <&3"
            sections += f"{gate} = [\"sh -c '{command}'\"]\n"
        site = Site(folder, {"host-a": "1GiB", "host-b": "1GiB"}, hooks=sections)
        with contextlib.closing(site):
            site.run("host-a", "host-b")
            yield site
            assert site.remains_at_last() == []


@contextlib.asynccontextmanager
async def held_at(site: Site, agents: Agents, uuid: str, source: str, moment: Hold) -> AsyncIterator[Held]:
    """Have an attempt wait at a moment; what held it goes on at the end."""
    destination = "host-b" if source == "host-a" else "host-a"
    for gate in GATES:
        (site.folder / gate / "armed").touch()
    terms = SLOW if moment is sending else policy(limit_ms=PATIENT_MS)
    held = Held(site, await started(agents, uuid, source, destination, terms), uuid)
    try:
        await moment(held)
        yield held
    finally:
        for gate in GATES:
            held.open(gate)
        held.thaw()


def owner(site: Site, uuid: str) -> str | None:
    """Return the host that the journals name as the one that has the machine, once nothing is open any more."""
    records = {host: site.record(host, uuid) for host in ("host-a", "host-b")}
    held = {host: record for host, record in records.items() if record is not None}
    owners = [host for host, record in held.items() if record.owns and record.former_retired and record.run_confirmed]
    return owners[0] if len(owners) == 1 and all(record.closed for record in held.values()) else None


STAYS, MOVES = (sending, at_the_gate, whole), (released, activating)
MOMENTS: tuple[Hold, ...] = (sending, at_the_gate, whole, ready, released, activating)
CASES = [(moment, side) for moment in MOMENTS for side in ("source", "dest")]
CASES += [(sending, "qemu there"), (whole, "qemu"), (ready, "qemu"), (at_the_gate, "cancel"), (whole, "cancel")]


async def kill(held: Held, who: str) -> Daemon | None:
    """Kill an agent, or a QEMU whose guest does not run, or cancel; return what can be started again."""
    if who == "cancel":
        await held.attempt.agents.cancel(held.source, held.attempt.key)
        return None
    if who.startswith("qemu"):
        host = held.destination if who == "qemu there" else held.source
        os.kill(held.site.instance(host, held.machine).vmm.pid, signal.SIGKILL)
        return None
    victim = held.site.source(held.source) if who == "source" else held.site.dest(held.destination)
    victim.kill()
    return victim


@pytest.mark.timeout(300)  # a dozen attempts of one machine: a guest boots for longer than each of them takes
async def test_whoever_is_killed_at_whichever_moment_the_guest_counts_on_at_one_host(
    site: Site, guest: Guest, tmp_path: Path
) -> None:
    serial = tmp_path / "serial"
    async with site.agents() as agents, machine(site, agents, specification(guest, serial)) as created:
        uuid, source = created.machine, "host-a"
        for moment, who in CASES:
            case = f"{who} at {moment.__name__}"
            await counted(serial)
            async with held_at(site, agents, uuid, source, moment) as held:
                victim = await kill(held, who)
            if victim is not None:
                victim.start()
            await until(lambda: owner(site, uuid) is not None, f"{case}: nobody has it")
            now = owner(site, uuid)
            if moment in STAYS and who != "qemu":
                assert now == source, case
            if moment in MOVES or who == "qemu":
                assert now == held.destination, case
            source = now or ""
            await counted(serial, counts(serial)[-1])
