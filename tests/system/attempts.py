"""Machines and attempts of a test site, driven call by call with an operator's certificate."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from uuid import uuid4

from orchestrator.agents import Agents
from tests.system.site import Site
from vm_migration.api.v1 import destination_pb2, source_pb2, types_pb2
from vm_migration.errors import MigrationError
from vm_migration.machine.software import SoftwareMachine
from vmm.assembly.specification import MachineSpecification, check_specification

MIB = 1 << 20
DEADLINE = 30.0
SLOW = 8 * MIB
"""Bytes a second at which a small machine's first round takes seconds, so that it has a middle.

Less than its device alone writes, and a third of what both write: rounds under it do not end where the guest is
throttled, nor where the test machine has little time for it.
"""
ENDLESS = (
    *("--downtime-limit", "100ms", "--max-bandwidth", f"{SLOW // MIB}MiB/s"),
    *("--compression", "none", "--measure", "0s"),
)
"""What asks for a migration that does not end by itself."""
PATIENT = ("--downtime-limit", "2s", "--measure", "0s")
"""What asks for one that a busy test machine can end."""


def specification(name: str, /, **changes: object) -> MachineSpecification:
    """Return a small machine that works; `changes` name `table_key` or keys of the device."""
    document: dict[str, dict[str, object]] = {
        "memory": {"size": "64MiB"},
        "viommu": {"mode": "scalable"},
        "guest": {"cpu_dirty_rate": "20MiB/s", "working_set": "24MiB"},
    }
    device: dict[str, object] = {"name": "qat0", "model": "qat", "address": "00:04.0", "dma_rate": "10MiB/s"}
    for key, value in changes.items():
        table, _, rest = key.partition("_")
        if table in document:
            document[table][rest] = value
        else:
            device[key] = value
    if document["viommu"].get("model") == "none":
        del document["viommu"]["mode"]
    return check_specification({"name": name, **document, "device": [device]}, name)


def policy(
    *,
    limit_ms: int = 2000,
    bandwidth: int = 0,
    verify: types_pb2.VerifyMode.ValueType = types_pb2.VERIFY_MODE_AUTO,
    transport: str = "grpc",
    streams: int = 1,
) -> types_pb2.Policy:
    """Return a policy that a busy test machine can keep."""
    return types_pb2.Policy(
        downtime_limit_ms=limit_ms,
        max_bandwidth_bytes_per_s=bandwidth,
        timeout_ms=60_000,
        on_timeout=types_pb2.ON_TIMEOUT_CANCEL,
        profile="balanced",
        transport=transport,
        streams=streams,
        compression="auto",
        verify=verify,
    )


@dataclass
class Attempt:
    """One attempt, from Begin on."""

    agents: Agents
    source: str
    destination: str
    begun: source_pb2.BeginResponse
    verify: types_pb2.VerifyMode.ValueType
    prepared: destination_pb2.PrepareResponse = field(default_factory=destination_pb2.PrepareResponse)
    transport: str = "grpc"
    streams: int = 1

    @property
    def key(self) -> types_pb2.AttemptKey:
        return self.begun.key

    async def prepare(self) -> None:
        request = prepare_request(self.begun, self.verify)
        request.transport, request.streams = self.transport, self.streams
        self.prepared = await self.agents.prepare(self.destination, request)

    async def start(self) -> None:
        request = source_pb2.StartRequest(
            key=self.key,
            control_address=self.prepared.control_address,
            bulk_address=self.prepared.bulk_address,
            ticket=self.prepared.ticket,
        )
        await self.agents.start(self.source, request)

    async def until(
        self, wanted: Callable[[source_pb2.AttemptReport], bool], within: float = DEADLINE
    ) -> source_pb2.AttemptReport:
        """Watch until a report is what is wanted, for so many seconds."""
        report = None
        async with asyncio.timeout(within), contextlib.aclosing(self._reports()) as reports:
            async for report in reports:
                if wanted(report):
                    return report
        raise AssertionError(f"The attempt ended before that: {report}")

    async def in_the_middle(self) -> source_pb2.AttemptReport:
        """Watch until some of the first round has gone."""
        return await self.until(lambda report: report.phase == "pre-copy" and report.percent > 0)

    async def end(self) -> source_pb2.AttemptReport:
        return await self.until(lambda report: bool(report.outcome))

    async def _reports(self) -> AsyncGenerator[source_pb2.AttemptReport, None]:
        async for report in self.agents.watch(self.source, self.key):
            yield report


def endless(*, transport: str = "grpc") -> types_pb2.Policy:
    """Return a policy under which the rounds do not end: the guest writes more than the bandwidth carries."""
    terms = policy(limit_ms=100, bandwidth=SLOW, transport=transport)
    terms.compression = "none"
    return terms


def prepare_request(
    begun: source_pb2.BeginResponse, verify: types_pb2.VerifyMode.ValueType = types_pb2.VERIFY_MODE_AUTO
) -> destination_pb2.PrepareRequest:
    return destination_pb2.PrepareRequest(
        key=begun.key,
        source=begun.source,
        secret_hash=begun.secret_hash,
        requirements=begun.requirements,
        streams=1,
        verify=verify,
    )


async def begin(
    agents: Agents, machine: str, source: str, destination: str, terms: types_pb2.Policy | None = None
) -> Attempt:
    """Open an attempt at its source."""
    wanted = terms or policy()
    key = types_pb2.AttemptKey(machine=machine, attempt=str(uuid4()), term=1)
    request = source_pb2.BeginRequest(key=key, destination=destination, policy=wanted)
    begun = await agents.begin(source, request)
    return Attempt(
        agents, source, destination, begun, wanted.verify, transport=wanted.transport, streams=wanted.streams
    )


async def started(
    agents: Agents, machine: str, source: str, destination: str, terms: types_pb2.Policy | None = None
) -> Attempt:
    """Open an attempt and start its rounds."""
    attempt = await begin(agents, machine, source, destination, terms)
    await attempt.prepare()
    await attempt.start()
    return attempt


async def in_the_middle(agents: Agents, source: str, machine: str) -> None:
    """Wait until an attempt that somebody else drives has sent some of its first round."""
    async with asyncio.timeout(DEADLINE):
        while not (status := await agents.get_machine(source, machine)).attempt:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0.02)
    key = types_pb2.AttemptKey(machine=machine, attempt=status.attempt)
    await Attempt(agents, source, "", source_pb2.BeginResponse(key=key), types_pb2.VERIFY_MODE_AUTO).in_the_middle()


async def migrated(
    agents: Agents, machine: str, source: str, destination: str, terms: types_pb2.Policy | None = None
) -> source_pb2.AttemptReport:
    """Move a machine and return the last report."""
    return await (await started(agents, machine, source, destination, terms)).end()


def require_whole(report: source_pb2.AttemptReport) -> None:
    """Check what must hold of every completed attempt."""
    assert report.outcome == "completed", report
    assert report.pages_verified == report.ram_bytes // 4096
    assert report.pages_mismatched == 0
    assert report.guest.errors == 0


@contextlib.asynccontextmanager
async def machine(
    site: Site, agents: Agents, wanted: MachineSpecification, at: str = "host-a"
) -> AsyncIterator[types_pb2.MachineStatus]:
    """Have a machine on a host; it is destroyed at the end, wherever it is by then."""
    status = await agents.create_machine(at, wanted.to_json(), wanted.memory.size)
    try:
        yield status
    finally:
        for host in site.budgets:
            if site.source(host).running and status.machine in site.machines_at(host):
                with contextlib.suppress(MigrationError):  # what is left then, the site's fixture finds
                    await agents.act_on_machine(host, status.machine, "destroy")


async def works(site: Site, host: str, machine: str, jobs: int = 0) -> int:
    """Wait until the guest has done more jobs than that, without an error, as its own process says; return how many."""
    port = SoftwareMachine(site.directory(host, machine).path)
    try:
        async with asyncio.timeout(DEADLINE):
            while True:
                seen = await port.describe()
                assert seen.guest.errors == 0
                if seen.guest.jobs_done > jobs and seen.run_state == "running":
                    return seen.guest.jobs_done
    finally:
        await port.close()


async def jobs_done(site: Site, host: str, machine: str) -> int:
    """Return how many jobs a guest has done."""
    port = SoftwareMachine(site.directory(host, machine).path)
    try:
        return (await port.describe()).guest.jobs_done
    finally:
        await port.close()
