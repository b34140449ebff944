"""What the agents of a host say, as documents."""

from collections.abc import Collection

from orchestrator.agents import HostAddresses
from orchestrator.documents.listings import HostDocument, LoadDocument, OfferDocument, SideDocument
from orchestrator.documents.migration import FaultDocument
from orchestrator.host_standing import Heard, identity_obstacles
from orchestrator.result import notice_documents
from vm_migration.api.v1 import types_pb2
from vm_migration.errors import MigrationError


def host_document(host: str, addresses: HostAddresses, heard: Heard, kept: Collection[str] | None) -> HostDocument:
    """Return a configured host as its two agents answered; `kept` are those in maintenance, None if nobody told."""
    conflicts = notice_documents(identity_obstacles(host, heard))
    source, dest = _side(addresses.source, heard.source), _side(addresses.dest, heard.dest)
    return HostDocument(host, source, dest, conflicts, None if kept is None else host in kept)


def _side(address: str, told: types_pb2.HostFacts | MigrationError) -> SideDocument:
    if isinstance(told, MigrationError):
        return SideDocument(
            address,
            answers=False,
            version=None,
            boot_id=None,
            memory_budget_bytes=None,
            memory_in_use_bytes=None,
            features=(),
            offer=None,
            load=None,
            error=FaultDocument(told.code, told.message, told.hint),
        )
    return SideDocument(
        address=address,
        answers=True,
        version=told.version,
        boot_id=told.boot_id,
        memory_budget_bytes=told.memory_budget_bytes,
        memory_in_use_bytes=told.memory_in_use_bytes,
        features=tuple(told.features),
        offer=_offer(told.offer) if told.HasField("offer") else None,
        load=_load(told.load) if told.HasField("load") else None,
        error=None,
    )


def _offer(told: types_pb2.HostOffer) -> OfferDocument:
    return OfferDocument(
        device_models=tuple(told.device_models),
        backends=tuple(told.backends),
        viommu_modes=tuple(told.viommu_modes),
        viommu_address_bits=tuple(told.viommu_address_bits),
        host_dirty_tracking=told.host_dirty_tracking,
        state_format=told.state_format,
        bulk_host=told.bulk_address,
        link_bytes_per_s=told.link_bytes_per_s or None,
    )


def _load(told: types_pb2.HostLoad) -> LoadDocument:
    return LoadDocument(told.machines, told.memory_reserved_bytes, told.memory_free_bytes, told.attempts)
