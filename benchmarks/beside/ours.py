"""Our own hosts on the link: agents in their network namespaces, with mutual TLS or without; one machine to and fro."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from benchmarks.beside.link import HOSTS
from benchmarks.beside.sample import Sample
from benchmarks.beside.usage import cpu_seconds
from benchmarks.rig import Rig
from orchestrator.attempt import Attempt, Outcome
from orchestrator.policy import MigrationPolicy
from orchestrator.site import agents_of, open_desk
from tests.faults.network import Network
from vm_migration.daemon.configuration import load
from vm_migration.errors import MigrationError
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue
from vm_migration.loopback.daemons import Daemon, program, running
from vm_migration.loopback.ports import free_ports
from vm_migration.loopback.site import OPERATOR, Addresses, SitePlan, agent_text, run_directory, site_text, tls_text
from vm_migration.machine.run_directory import RunDirectory
from vmm.assembly.specification import MachineSpecification

SITE: Final = "bench"
_BESIDES: Final = 256 << 20
_TIDY_SECONDS: Final = 20.0


@contextlib.asynccontextmanager
async def running_hosts(
    folder: Path, network: Network, memory: int, *, tls: bool, offer: str = ""
) -> AsyncIterator[Path]:
    """Run both hosts' agents in an empty folder; yield the operator's configuration. Nothing is left afterwards.

    `offer` is the section that says what machines may have there.

    Raises:
        InternalError: An agent did not start.
    """
    plan = SitePlan(SITE, HOSTS, memory_budget=memory + _BESIDES, insecure=not tls)
    identities = {}
    if tls:
        create_authority(folder / "pki", SITE)
        roles = {OPERATOR: Role.OPERATOR, **dict.fromkeys(HOSTS, Role.HOST)}
        identities = {name: issue(folder / "pki", Identity(SITE, role, name)) for name, role in roles.items()}
    text = site_text(folder, plan, _addresses(network))
    daemons = []
    for host in HOSTS:
        path = folder / f"{host}.toml"
        path.write_text(text + tls_text(identities.get(host)) + agent_text(folder, host, plan.memory_budget) + offer)
        words = ["--config", str(path), *([] if tls else ["--insecure"])]
        daemons += [
            Daemon(f"{host}-{side}", [*network.inside(host), program(f"viaduct-{side}-agent"), *words])
            for side in ("source", "dest")
        ]
    operator = folder / f"{OPERATOR}.toml"
    operator.write_text(text + tls_text(identities.get(OPERATOR)))
    async with running(folder, daemons):
        yield operator


def _addresses(network: Network) -> Addresses:
    """Return where the agents listen: in a namespace the same two ports on each host, on loopback four free ones."""
    if network.has_cables:
        source, dest = network.ports(2)
        at = {host: network.address(host) for host in HOSTS}
        return Addresses("", {h: f"{at[h]}:{source}" for h in HOSTS}, {h: f"{at[h]}:{dest}" for h in HOSTS})
    free = [f"127.0.0.1:{port}" for port in free_ports(4)]
    return Addresses("", dict(zip(HOSTS, free[:2], strict=True)), dict(zip(HOSTS, free[2:], strict=True)))


@contextlib.asynccontextmanager
async def machine_on(operator: Path, specification: MachineSpecification, *, tls: bool) -> AsyncIterator[Rig]:
    """Create a machine on the first host, driven by this process; it is destroyed in the end."""
    configuration = load(operator, {}, insecure=not tls)
    async with agents_of(configuration) as agents, open_desk(configuration, drives=True) as desk:
        machine = await agents.create_machine(HOSTS[0], specification.to_json(), specification.memory.size)
        made = Rig(agents, desk, machine, configuration)
        try:
            yield made
        finally:
            await agents.act_on_machine(HOSTS[made.at], made.machine.machine, "destroy")


async def move(rig: Rig, folder: Path, policy: MigrationPolicy, who: str, turn: int) -> Sample:
    """Move the machine to the host where it is not; an option that this version refuses is told as not offered."""
    used = cpu_seconds(folder)
    try:
        attempt = await rig.move(policy)
    except MigrationError as error:
        refused = error.code.endswith("not-offered")  # by this version, or by an agent
        return Sample(who=who, turn=turn, outcome="not offered" if refused else "failed", why=error.message)
    await _tidied(folder)
    return sample_of(attempt, who, turn, cpu_seconds(folder) - used)


def sample_of(attempt: Attempt, who: str, turn: int, used: float) -> Sample:
    """Return what an attempt came to; its total and its downtime are its report's own."""
    report = attempt.report
    if attempt.outcome is not Outcome.COMPLETED or report is None:
        why = attempt.error.message if attempt.error is not None else attempt.reason
        slow = attempt.error is not None and attempt.error.code == "timeout"
        return Sample(who=who, turn=turn, outcome="did not complete" if slow else "failed", why=why)
    return Sample(
        who=who,
        turn=turn,
        outcome="completed",
        total_ms=report.total_ms - attempt.prepare_ms,
        ready_ms=attempt.prepare_ms,
        downtime_ms=report.downtime.downtime_ms,
        own_downtime_ms=report.downtime.downtime_ms,
        bulk_ms=report.bulk_ms,
        wire_bytes=report.wire_bytes,
        cpu_seconds=used,
        rounds=report.rounds_closed,
        delta_pages=sum(one.delta_pages for one in report.rounds),
        held_back_pages=sum(one.held_back_pages for one in report.rounds),
        mismatched_pages=report.pages_mismatched,
    )


async def _tidied(folder: Path) -> None:
    """Wait until the source has let its processes go: what they used is counted by then by who started them."""
    until = time.monotonic() + _TIDY_SECONDS
    while time.monotonic() < until:
        if sum(len(list(RunDirectory(run_directory(folder, host)).all())) for host in HOSTS) <= 1:
            return
        await asyncio.sleep(0.01)  # folders have no event here
    raise RuntimeError("The machine's processes at its source have not ended")
