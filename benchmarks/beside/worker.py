"""Plays one scenario in namespaces of its own: started by benchmarks.beside.turns, answers a sample a line.

When its standard input ends, whoever asked is gone: so does everything then.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from benchmarks import iperf
from benchmarks.beside import ours, qemu, real
from benchmarks.beside.content import MEMORY_FILES, write_content
from benchmarks.beside.guest import build
from benchmarks.beside.link import HOSTS, make_link
from benchmarks.beside.qemu import QemuMode
from benchmarks.beside.sample import Sample
from benchmarks.beside.scenarios import IPERF, OurMode, Scenario, named
from benchmarks.beside.usage import MemoryWatch
from benchmarks.rig import Rig
from tests.faults.network import Network
from vmm.assembly.specification import check_specification


async def play(scenario: Scenario, runs: int, network: Network, folder: Path) -> AsyncIterator[Sample]:
    """Move the machine by each in turn, so that all see the same machine; turn 0 warms up and does not count."""
    specification = check_specification(await _machine(scenario, folder), "the benchmark's machine")
    offer = real.offer() if scenario.real else ""
    ram = folder / "ram"
    if scenario.peers:
        await asyncio.to_thread(write_content, ram, scenario.size, scenario.content, 1)
    machine = qemu.QemuMachine(ram, scenario.size, scenario.load, scenario.limit_ms, scenario.timeout_s)
    (folder / "qemu").mkdir()
    async with contextlib.AsyncExitStack() as stack:
        sites: dict[bool, tuple[Rig, Path]] = {}
        for tls in {scenario.secures(mode): None for mode in scenario.ours}:
            hosts = folder / ("hosts-tls" if tls else "hosts-plain")  # neither begins the other: see `end_leftovers`
            hosts.mkdir()
            site = ours.running_hosts(hosts, network, 2 * scenario.size, tls=tls, offer=offer)
            operator = await stack.enter_async_context(site)
            rig = await stack.enter_async_context(ours.machine_on(operator, specification, tls=tls))
            if scenario.real:
                await asyncio.to_thread(real.fill, hosts, rig.machine.machine, ram)
            sites[tls] = (rig, hosts)
        most = scenario.turns(runs)
        for turn in range(most + 1):
            if scenario.iperf and turn <= runs:
                yield await _iperf(network, turn)
            for mover in movers(scenario, turn) if turn <= runs else scenario.ours[:1]:
                if isinstance(mover, OurMode):
                    rig, hosts = sites[scenario.secures(mover)]
                    yield await _ours(scenario, mover, rig, hosts, turn)
                    continue
                sample = await qemu.migrate(network, folder / "qemu", machine, mover, turn)
                if sample.mismatched_pages:
                    raise RuntimeError(f"{sample.who} did not move what its RAM holds: {sample.mismatched_pages} pages")
                yield sample


async def _machine(scenario: Scenario, folder: Path) -> dict[str, object]:
    """Return our machine, and write what it is made of into a folder."""
    if scenario.real:
        return real.specification(scenario.size, await asyncio.to_thread(build, folder, scenario.load))
    image = folder / "image"
    await asyncio.to_thread(write_content, image, scenario.size, scenario.content, 1)
    return scenario.specification(str(image))


def movers(scenario: Scenario, turn: int) -> tuple[OurMode | QemuMode, ...]:
    """Return who moves the machine in a turn, in which order: everybody meets the memory that others have left.

    Another one begins each turn, and every second one goes the other way round, so that nobody follows the same one
    each time: what QEMU gave back is colder than what an agent of ours did.
    """
    everybody: tuple[OurMode | QemuMode, ...] = (*scenario.ours, *scenario.peers)
    first = turn % len(everybody)
    others = (*everybody[first + 1 :], *everybody[:first])
    return (everybody[first], *(others[::-1] if turn % 2 else others))


async def _iperf(network: Network, turn: int) -> Sample:
    rate = await asyncio.to_thread(
        iperf.bytes_per_second, network.address(HOSTS[1]), network.inside(HOSTS[0]), network.inside(HOSTS[1])
    )
    return Sample(who=IPERF, turn=turn, outcome="completed", bytes_per_s=rate)


async def _ours(scenario: Scenario, mode: OurMode, rig: Rig, hosts: Path, turn: int) -> Sample:
    policy = mode.policy(scenario.limit_ms, scenario.timeout_s)
    if scenario.load.rate:
        written = (await rig.look()).guest.dirty_bytes_per_s
        sample = await ours.move(rig, hosts, policy, mode.name, turn)
        return msgspec.structs.replace(sample, guest_bytes_per_s=written)
    if not scenario.watch_memory:
        return await ours.move(rig, hosts, policy, mode.name, turn)
    watch = MemoryWatch(hosts)
    with watch.watching():
        sample = await ours.move(rig, hosts, policy, mode.name, turn)
    return msgspec.structs.replace(sample, agent_bytes=watch.most)


async def _tell(scenario: Scenario, runs: int) -> None:
    network = make_link(scenario.link)
    try:
        with tempfile.TemporaryDirectory(prefix="vb-", dir=MEMORY_FILES) as folder:
            async for sample in play(scenario, runs, network, Path(folder)):
                sys.stdout.write(msgspec.json.encode(sample).decode() + "\n")
                sys.stdout.flush()
    finally:
        network.close()


def end_with_input() -> None:
    """End this process, and with it everything in its namespaces, when whoever started it is gone."""

    def watch() -> None:
        while os.read(0, 4096):  # not sys.stdin, whose lock would be held when this process ends by itself
            pass
        os._exit(1)

    threading.Thread(target=watch, name="end with input", daemon=True).start()


def main() -> None:
    """Play the scenario that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside.worker", description=__doc__)
    parser.add_argument("scenario", type=named)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--size", type=int, default=0, help="bytes; 0: as the scenario says")
    arguments = parser.parse_args()
    end_with_input()
    scenario: Scenario = arguments.scenario
    asyncio.run(_tell(scenario.sized(arguments.size), arguments.runs))


if __name__ == "__main__":
    main()
