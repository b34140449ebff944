"""Whichever agent is killed at whichever moment: a real QEMU's guest counts on, at one host, without gap or repeat.

Both hosts' machines print into one file. Two guests that run would each write the counts of the other once more.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from tests.qemu_guest.build import Guest
from tests.qemu_guest.serial import counts
from tests.system.attempts import DEADLINE, Attempt, machine, policy, started
from tests.system.command import viaduct
from tests.system.daemons import Daemon
from tests.system.processes import ended
from tests.system.qemu_machines import (
    bare,
    counted,
    folders_of_tls,
    offer,
    slow,
    specification,
    two_hosts,
    until,
)
from tests.system.site import Site
from tests.vm_migration.machine.qemu.own_monitor import own_monitor, with_door

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

    def qemu(self, host: str) -> int:
        return self.site.instance(host, self.machine).vmm.pid

    def beside(self, host: str) -> int:
        """Return the process that stands beside a host's QEMU, without which nothing can be asked of that."""
        return self.site.instance(host, self.machine).host.pid


async def sending(held: Held) -> None:
    await held.attempt.in_the_middle()


async def at_the_gate(held: Held) -> None:
    await held.reached("before_handoff")


async def past_the_gate(held: Held) -> None:
    """The source sends what is left, towards a QEMU that hangs: how it ends is not in its hands any more."""
    await held.reached("before_handoff")
    held.freeze(held.qemu(held.destination))
    async with own_monitor(held.site.directory(held.source, held.machine).path) as monitor:
        held.open("before_handoff")
        await monitor.hears("MIGRATION")


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
def shared_site(programs: dict[str, str]) -> Iterator[Site]:
    def sections(folder: Path) -> str:
        text = f"{offer(*programs.values())}[hooks]\n"
        for gate in GATES:
            place = folder / gate
            place.mkdir()
            os.mkfifo(place / "fifo")
            command = f"test -e {place}/armed || exit 0; exec 3<>{place}/fifo; : > {place}/reached; read -r word <&3"
            text += f"{gate} = [\"sh -c '{command}'\"]\n"
        return text

    with two_hosts(sections) as site:
        yield site


@contextlib.asynccontextmanager
async def held_at(
    site: Site, agents: Agents, uuid: str, source: str, moment: Hold, *, channels: int = 1, transport: str = "grpc"
) -> AsyncIterator[Held]:
    """Have an attempt wait at a moment; what held it goes on at the end."""
    destination = "host-b" if source == "host-a" else "host-a"
    for gate in GATES:
        (site.folder / gate / "armed").touch()
    patient = policy(limit_ms=PATIENT_MS, streams=channels, transport=transport)
    terms = slow(channels, transport) if moment is sending else patient
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


@dataclass(frozen=True)
class Case:
    """Who is killed when, and whether the stream goes through the agents (grpc) or past them (direct)."""

    moment: Hold
    who: str
    transport: str = "grpc"

    def __str__(self) -> str:
        return f"{self.who} at {self.moment.__name__}, {self.transport}"


STAYS, MOVES = (sending, at_the_gate, past_the_gate, whole), (released, activating)
MOMENTS: tuple[Hold, ...] = (sending, at_the_gate, whole)
CASES = [Case(moment, side) for moment in MOMENTS for side in ("source", "dest")]
CASES += [Case(sending, side, "direct") for side in ("source", "dest")]
CASES += [Case(sending, "qemu there"), Case(whole, "qemu")]
CASES += [Case(at_the_gate, "cancel"), Case(whole, "cancel")]
CASES += [Case(past_the_gate, "qemu there", transport) for transport in ("grpc", "direct")]
TURN_ABOUT = [
    Case(ready, "source"),
    Case(ready, "dest"),
    Case(released, "dest"),
    Case(released, "source"),
    Case(activating, "source"),
    Case(activating, "dest"),
    Case(at_the_gate, "dest", "direct"),
    Case(at_the_gate, "source", "direct"),
    Case(past_the_gate, "source", "direct"),
    Case(past_the_gate, "dest", "direct"),
    Case(ready, "qemu"),
]
"""Of which each program has every other one; all of them for both has `make faults`, which CI does not run.

From READY on nothing more is asked of a QEMU's stream, so that it makes no difference there which program it is.
"""


async def kill(held: Held, who: str) -> Daemon | None:
    """Kill an agent, or a QEMU whose guest does not run, or cancel; return what can be started again."""
    if who == "cancel":
        await held.attempt.agents.cancel(held.source, held.attempt.key)
        return None
    if who.startswith("qemu"):
        os.kill(held.qemu(held.destination if who == "qemu there" else held.source), signal.SIGKILL)
        return None
    victim = held.site.source(held.source) if who == "source" else held.site.dest(held.destination)
    victim.kill()
    return victim


@pytest.mark.timeout(420)  # twenty attempts of one machine, each of which has an agent start again, or a QEMU
@pytest.mark.parametrize("first", [0, 1], ids=["debian", "newer"])
async def test_whoever_is_killed_at_whichever_moment_the_guest_counts_on_at_one_host(
    site: Site, guest: Guest, tmp_path: Path, programs: dict[str, str], first: int
) -> None:
    """One attempt goes over one connection, the next over several; with the other program the other way round."""
    serial, program = tmp_path / "serial", [*programs.values()][first]
    wanted = specification(guest, serial, *with_door(), binary=program)
    async with site.agents() as agents, machine(site, agents, wanted) as created:
        uuid, source = created.machine, "host-a"
        for number, case in enumerate([*CASES, *TURN_ABOUT[first::2]], first):
            channels = 1 + number % 2
            await counted(serial)
            holding = held_at(site, agents, uuid, source, case.moment, channels=channels, transport=case.transport)
            async with holding as held:
                qemus = {host: held.qemu(host) for host in (held.source, held.destination)}
                victim = await kill(held, case.who)
            if victim is not None:
                victim.start()
            await until(lambda: owner(site, uuid) is not None, f"{case} over {channels}: nobody has it")
            now = owner(site, uuid)
            if case.moment in STAYS and case.who != "qemu":
                assert (now, site.states(source, uuid)[-1]) == (source, "ABORTED"), case
            if case.moment in MOVES or case.who == "qemu":
                assert now == held.destination, case
            (other,) = qemus.keys() - {now}
            assert await asyncio.to_thread(ended, qemus[other], DEADLINE), f"{case}: {other}'s copy goes on"
            assert folders_of_tls(site) == [], case
            source = now or ""
            await counted(serial, counts(serial)[-1])


async def test_a_released_copy_that_somebody_lets_run_is_stopped_and_found_by_the_doctor(site: Site) -> None:
    async with site.agents() as agents, machine(site, agents, bare(*with_door())) as created:
        uuid = created.machine
        async with held_at(site, agents, uuid, "host-a", released) as held:
            there = site.dest("host-b")
            there.kill()  # whose machine waits, so that nobody has the released copy freed
            async with own_monitor(site.directory("host-a", uuid).path) as monitor:
                await monitor.session.tell("cont")
                assert [await monitor.next_event(), await monitor.next_event()] == ["RESUME", "STOP"]
            assert (await agents.get_machine("host-a", uuid)).run_state == "paused"
            doctor = await viaduct(site, "doctor", "--json")
            assert doctor.exit_code == 8, doctor.err
            found = doctor.document["findings"]
            assert isinstance(found, list)
            (stray,) = [one for one in found if one["code"] == "stray-run"]
            assert (stray["host"], stray["machine"]) == (held.source, uuid)
            assert "ran once, and was stopped again" in stray["message"]
        there.start()
        await until(lambda: owner(site, uuid) == "host-b", "nobody has it")
        doctor = await viaduct(site, "doctor")
        assert doctor.exit_code == 0, doctor.out
