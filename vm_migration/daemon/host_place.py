"""Where an agent of a host stands: its addresses, its folders, its memory."""

from dataclasses import dataclass, field
from pathlib import Path

from vm_migration.daemon.configuration import Configuration
from vm_migration.daemon.configuration_sections import HostSection, OfferSection
from vm_migration.daemon.host_offer import HostOffer
from vm_migration.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class HostPlace:
    """One host, as `[agent]` and `[host.NAME]` say together; memory in bytes, patience in seconds."""

    host: str
    source: str
    dest: str
    bulk: str
    state_dir: Path
    run_dir: Path
    memory_budget: int
    arrival_patience: float
    units: Path | None = None
    offer: HostOffer = field(default_factory=HostOffer)


def own_place(configuration: Configuration) -> HostPlace:
    """Return the host whose agent is to run here.

    Raises:
        InvalidInput: The configuration does not say which host this is, or where it listens.
    """
    agent = configuration.agent
    if agent is None:
        raise InvalidInput(
            "no-agent", "The configuration has no [agent] section", "Say which host this is: [agent] host"
        )
    section = configuration.host.get(agent.host)
    if section is None:
        text = f"[agent] host is {agent.host!r}, and there is no [host.{agent.host}]"
        raise InvalidInput("unknown-host", text, f"Add [host.{agent.host}] with source and dest")
    return HostPlace(
        host=agent.host,
        source=section.source,
        dest=section.dest,
        bulk=section.bulk or "",
        state_dir=Path(agent.state_dir),
        run_dir=Path(agent.run_dir),
        memory_budget=agent.memory_budget,
        arrival_patience=agent.arrival_patience,
        units=agent.units,
        offer=_offer(configuration.offer, section),
    )


def _offer(said: OfferSection, host: HostSection) -> HostOffer:
    return HostOffer(
        device_models=frozenset(said.device_models),
        backends=frozenset(said.backends),
        viommu_modes=frozenset(said.viommu_modes),
        viommu_address_bits=frozenset(said.viommu_address_bits),
        host_dirty_tracking=said.host_dirty_tracking,
        bulk_host=host.bulk_host,
        link_bytes_per_s=host.bandwidth,
        qemu=frozenset(said.qemu),
    )
