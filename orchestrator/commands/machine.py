"""`viaduct machine ...`: machines are created on a host, and looked at and touched wherever they are."""

from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from orchestrator.attempt import notices
from orchestrator.commands.options import Window
from orchestrator.documents.listings import (
    DirtyRateDocument,
    MachineDocument,
    MachinesDocument,
    OneMachineDocument,
    SilentHostDocument,
)
from orchestrator.documents.migration import FaultDocument
from orchestrator.hearing import require_itself
from orchestrator.inventory import require_free_name, resolve, survey
from orchestrator.render.listings import show_dirty_rate, show_machine, show_machines
from orchestrator.result import guest_document, memory_document, notice_documents
from orchestrator.site import agents_of
from vm_migration.api.v1.types_pb2 import MachineStatus
from vm_migration.command_line.invocation import Answer, Invocation, answering
from vm_migration.errors import MigrationError
from vm_migration.machine.windows import LONGEST_WINDOW_MS, SHORTEST_WINDOW_MS
from vmm.assembly.specification import load_specification
from vmm.memory.quantities import PAGE_SIZE

Act = Literal["pause", "resume", "suspend", "wake", "destroy"]


@click.group("machine")
def machine() -> None:
    """Create machines and look after them."""


@machine.command("create")
@click.argument("specification", type=click.Path(path_type=Path))
@click.option("--host", required=True, help="The host that it starts on.")
@answering
async def create(call: Invocation, specification: Path, host: str) -> Answer:
    """Create and start the machine that the file SPECIFICATION (TOML) describes."""
    wanted = load_specification(specification)
    async with agents_of(call.configuration()) as agents:
        agents.require(host)
        require_free_name(wanted.name, await survey(agents))
        await require_itself(agents, host, "source")
        status = await agents.create_machine(host, wanted.to_json(), wanted.memory.size)
    return _one(status)


@machine.command("list")
@answering
async def list_machines(call: Invocation) -> Answer:
    """List the machines of all hosts; a host that does not answer is named."""
    async with agents_of(call.configuration()) as agents:
        found = await survey(agents)
    document = MachinesDocument(
        "viaduct.machines.v1",
        tuple(machine_document(one) for one in found.machines),
        tuple(SilentHostDocument(host, _fault(error)) for host, error in found.silent.items()),
    )

    def show_them(console: Console) -> None:
        show_machines(console, document.machines, document.silent)

    return Answer(document, show_them)


@machine.command("show")
@click.argument("name")
@answering
async def show(call: Invocation, name: str) -> Answer:
    """Show the machine NAME (or UUID)."""
    async with agents_of(call.configuration()) as agents:
        status = resolve(name, await survey(agents))
        return _one(await agents.get_machine(status.host, status.machine))


@machine.command("dirty-rate")
@click.argument("name")
@click.option(
    "--window",
    "window_ms",
    type=Window(SHORTEST_WINDOW_MS, LONGEST_WINDOW_MS),
    default="1s",
    show_default=True,
    help="How long to look: 10ms to 10s.",
)
@answering
async def dirty_rate(call: Invocation, name: str, window_ms: int) -> Answer:
    """Measure how fast the machine NAME dirties its memory, without moving it; refused while an attempt is open."""
    async with agents_of(call.configuration()) as agents:
        status = resolve(name, await survey(agents))
        found = await agents.measure_dirty_rate(status.host, status.machine, window_ms)
    seconds = found.window_ms / 1000
    document = DirtyRateDocument(
        "viaduct.dirty_rate.v1",
        machine=found.status.name,
        host=found.status.host,
        window_ms=found.window_ms,
        cpu_pages=found.cpu_pages,
        dma_pages=found.dma_pages,
        pages=found.pages,
        dirty_bytes_per_s=found.pages * PAGE_SIZE / seconds if seconds else 0.0,
        exact=found.exact,
        failure=found.failure or None,
        sampled=found.sampled,
    )

    def show_it(console: Console) -> None:
        show_dirty_rate(console, document)

    return Answer(document, show_it)


@machine.command("pause")
@click.argument("name")
@answering
async def pause(call: Invocation, name: str) -> Answer:
    """Pause the machine NAME; refused while an attempt is open."""
    return await _act(call, name, "pause")


@machine.command("resume")
@click.argument("name")
@answering
async def resume(call: Invocation, name: str) -> Answer:
    """Resume the machine NAME; refused while an attempt is open."""
    return await _act(call, name, "resume")


@machine.command("suspend")
@click.argument("name")
@answering
async def suspend(call: Invocation, name: str) -> Answer:
    """Have the guest of the machine NAME suspend to RAM, as `update --mode reboot` needs it."""
    return await _act(call, name, "suspend")


@machine.command("wake")
@click.argument("name")
@answering
async def wake(call: Invocation, name: str) -> Answer:
    """Wake the guest of the machine NAME that is suspended to RAM."""
    return await _act(call, name, "wake")


@machine.command("destroy")
@click.argument("name")
@answering
async def destroy(call: Invocation, name: str) -> Answer:
    """Destroy the machine NAME, its memory with it; refused while an attempt is open."""
    return await _act(call, name, "destroy")


async def _act(call: Invocation, name: str, act: Act) -> Answer:
    async with agents_of(call.configuration()) as agents:
        status = resolve(name, await survey(agents))
        return _one(await agents.act_on_machine(status.host, status.machine, act))


def _one(status: MachineStatus) -> Answer:
    document = OneMachineDocument("viaduct.machine.v1", machine_document(status))

    def show_it(console: Console) -> None:
        show_machine(console, document.machine)

    return Answer(document, show_it)


def machine_document(status: MachineStatus) -> MachineDocument:
    """Return a machine as a document."""
    return MachineDocument(
        machine=status.machine,
        name=status.name,
        host=status.host,
        state=status.state,
        epoch=status.epoch,
        run_state=status.run_state,
        ram_bytes=status.ram_bytes,
        attempt=status.attempt or None,
        guest=guest_document(status.guest) if status.HasField("guest") else None,
        memory=memory_document(status.memory) if status.HasField("memory") else None,
        warnings=notice_documents(notices(status.warnings)),
    )


def _fault(error: MigrationError) -> FaultDocument:
    return FaultDocument(error.code, error.message, error.hint)
