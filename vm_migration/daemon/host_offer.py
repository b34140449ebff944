"""What machines may have on a host, and what one asks for that is not there. Pure.

It is what this version can host, less what the site's configuration takes away: `[offer]` in docs/configuration.md. A
destination refuses what it does not offer, and whoever chooses one reads the same offer beforehand.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self, get_args

from vm_migration.api.v1 import types_pb2
from vm_migration.machine.qemu.programs import program_for
from vmm.assembly.machine_state import STATE_FORMAT
from vmm.assembly.qemu_specification import QemuSpecification
from vmm.assembly.specification import (
    AddressBits,
    Backend,
    DeviceModel,
    DeviceSpecification,
    MachineSpecification,
    ViommuMode,
    ViommuSpecification,
)
from vmm.process.control import Observation

DEVICE_NOT_OFFERED: Final = "device-not-offered"
IOMMU_NOT_OFFERED: Final = "iommu-not-offered"
KIND_NOT_OFFERED: Final = "kind-not-offered"


@dataclass(frozen=True, slots=True)
class HostOffer:
    """What one host offers: all of this version where nothing else is said.

    The link is in bytes a second, 0 where nobody said. Names that this version does not know are kept as they are.
    """

    device_models: frozenset[str] = frozenset(get_args(DeviceModel))
    backends: frozenset[str] = frozenset(get_args(Backend))
    viommu_modes: frozenset[str] = frozenset(get_args(ViommuMode))
    viommu_address_bits: frozenset[int] = frozenset(get_args(AddressBits))
    host_dirty_tracking: bool = True
    state_format: int = STATE_FORMAT
    bulk_host: str = ""
    link_bytes_per_s: int = 0
    qemu: frozenset[str] = frozenset()
    """Paths of programs that may run as machines of kind qemu."""

    def message(self) -> types_pb2.HostOffer:
        """Return it for the wire."""
        return types_pb2.HostOffer(
            device_models=sorted(self.device_models),
            backends=sorted(self.backends),
            viommu_modes=sorted(self.viommu_modes),
            viommu_address_bits=sorted(self.viommu_address_bits),
            host_dirty_tracking=self.host_dirty_tracking,
            state_format=self.state_format,
            bulk_address=self.bulk_host,
            link_bytes_per_s=self.link_bytes_per_s,
            qemu=sorted(self.qemu),
        )

    @classmethod
    def told(cls, facts: types_pb2.HostFacts) -> Self | None:
        """Read a host's offer; None where it makes none, as a host of 0.1.0: nothing is known then."""
        if not facts.HasField("offer"):
            return None
        said = facts.offer
        return cls(
            frozenset(said.device_models),
            frozenset(said.backends),
            frozenset(said.viommu_modes),
            frozenset(said.viommu_address_bits),
            said.host_dirty_tracking,
            said.state_format,
            said.bulk_address,
            said.link_bytes_per_s,
            frozenset(said.qemu),
        )


def unmet(offer: HostOffer, wanted: MachineSpecification, host: str) -> tuple[Observation, ...]:
    """Return everything that a machine has and a host does not offer."""
    return (
        *_unmet_kind(offer, wanted.qemu, host),
        *_unmet_viommu(offer, wanted.viommu, host),
        *_unmet_devices(offer, wanted.device, host),
    )


def _unmet_kind(offer: HostOffer, wanted: QemuSpecification | None, host: str) -> Iterator[Observation]:
    if wanted is not None and program_for(wanted.binary, offer.qemu) is None:
        text = f"{host} runs no machine by {wanted.binary}: [offer] qemu there lists none, or several of that name"
        yield Observation(code=KIND_NOT_OFFERED, message=text)


def _unmet_viommu(offer: HostOffer, wanted: ViommuSpecification, host: str) -> Iterator[Observation]:
    if wanted.model == "none":
        return
    if wanted.mode not in offer.viommu_modes:
        text = f"{host} offers no vIOMMU in {wanted.mode} mode"
        yield Observation(code=IOMMU_NOT_OFFERED, message=text)
    if wanted.aw_bits not in offer.viommu_address_bits:
        text = f"{host} offers no vIOMMU with addresses of {wanted.aw_bits} bits"
        yield Observation(code=IOMMU_NOT_OFFERED, message=text)


def _unmet_devices(offer: HostOffer, wanted: tuple[DeviceSpecification, ...], host: str) -> Iterator[Observation]:
    for device in wanted:
        if device.model not in offer.device_models:
            text = f"{host} offers no device of model {device.model}"
            yield Observation(code=DEVICE_NOT_OFFERED, message=text, device=device.name)
        if device.backend not in offer.backends:
            text = f"{host} offers no devices through {device.backend}"
            yield Observation(code=DEVICE_NOT_OFFERED, message=text, device=device.name)
        if device.backend == "iommufd" and device.host_iommu_dirty_tracking and not offer.host_dirty_tracking:
            text = f"The IOMMU of {host} keeps no dirty bits"
            yield Observation(code=IOMMU_NOT_OFFERED, message=text, device=device.name)
