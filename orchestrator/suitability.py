"""Whether a host could take a machine: who it is, whether it has room, whether it offers what the machine has. Pure.

What is not known stands against nobody: a host that does not say what it offers, as one of 0.1.0, is asked about the
machine itself before anything is begun.
"""

from dataclasses import dataclass

from orchestrator.attempt import Notice
from orchestrator.host_standing import HostStanding
from orchestrator.policy import Transport, lacking_transport
from vm_migration.api.v1.types_pb2 import MachineStatus
from vm_migration.daemon.host_facts import TRANSPORT_NOT_OFFERED, speak_alike
from vm_migration.daemon.host_offer import unmet
from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.quantity_text import format_size
from vmm.assembly.specification import MachineSpecification, parse_specification


@dataclass(frozen=True, slots=True)
class Needs:
    """What a machine asks of a destination; memory in bytes.

    `specification` is None where it cannot be read here, `version` and `state_format` where its source does not tell.
    """

    source: str
    ram_bytes: int
    specification: MachineSpecification | None = None
    version: str | None = None
    state_format: int | None = None


def needs_of(machine: MachineStatus, source: HostStanding) -> Needs:
    """Return what a machine asks for, as its host tells of it and of itself."""
    try:
        wanted = parse_specification(machine.specification_json.encode()) if machine.specification_json else None
    except InvalidDocument:  # a newer version's; its destination reads it again
        wanted = None
    state_format = None if source.offer is None else source.offer.state_format
    return Needs(machine.host, machine.ram_bytes, wanted, source.version, state_format)


def obstacles(needs: Needs, host: HostStanding, transport: Transport = "grpc") -> tuple[Notice, ...]:
    """Return everything that stands against a host; of one that is silent or somebody else, that alone."""
    if host.obstacles:
        return host.obstacles
    found = [*_other_version(needs, host), *_no_memory(needs, host), *_unmet(needs, host)]
    if (text := lacking_transport(transport, host.features, host.host)) is not None:
        found.append(Notice(TRANSPORT_NOT_OFFERED, text))
    return tuple(found)


def unknown(host: HostStanding) -> tuple[str, ...]:
    """Return what a host that answers did not say, for people."""
    if host.obstacles:
        return ()
    said = {
        "version": host.version,
        "memory": None if host.memory_budget is None else host.memory_free,
        "devices and vIOMMUs": host.offer,
        "attempts that leave": host.attempts_out,
        "attempts that arrive": host.attempts_in,
    }
    return tuple(name for name, value in said.items() if value is None)


def _other_version(needs: Needs, host: HostStanding) -> list[Notice]:
    apart = needs.version is not None and host.version is not None and not speak_alike(needs.version, host.version)
    kept = needs.state_format if host.offer is None else host.offer.state_format
    if not apart and needs.state_format in (None, kept):
        return []
    return [Notice("version", f"Source has version {needs.version}, {host.host} has {host.version}")]


def _no_memory(needs: Needs, host: HostStanding) -> list[Notice]:
    if host.memory_free is None or needs.ram_bytes <= host.memory_free:
        return []
    text = f"{host.host} has {format_size(host.memory_free)} left of its memory budget"
    return [Notice("no-memory", f"{text}; {format_size(needs.ram_bytes)} are needed")]


def _unmet(needs: Needs, host: HostStanding) -> list[Notice]:
    if host.offer is None or needs.specification is None:
        return []
    return [Notice(one.code, one.message, one.device) for one in unmet(host.offer, needs.specification, host.host)]
