"""The machine specification: what a person writes in TOML, and what agents send each other as JSON.

Both ways lead through the same checks. Sizes and rates are accepted as text or as whole bytes; the model holds bytes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, Field, Strict, ValidationError

from vmm.assembly.document_faults import MAX_DOCUMENT, Fault, InvalidDocument, faults_of, read_toml
from vmm.assembly.field_kinds import AbsolutePath, Address, Name, Rate, Size, Table
from vmm.assembly.qemu_conflicts import MODEL_TABLES, conflicts_without_qemu, qemu_conflicts
from vmm.assembly.qemu_specification import QemuSpecification
from vmm.assembly.specification_conflicts import conflicts
from vmm.rules import Rules, RuleSet

_NO_MODEL: Final[Mapping[str, object]] = {"viommu": {"model": "none"}}
"""Of a model that is none: QEMU's own arguments say what it has."""
DeviceModel = Literal["qat", "nic", "gpu", "plain"]
Backend = Literal["iommufd", "type1"]
ViommuMode = Literal["scalable", "legacy"]
AddressBits = Literal[39, 48]


class MemorySpecification(Table):
    """RAM: its size in bytes, what holds it, and the file that it starts from (a mixture without one)."""

    size: Size
    backing: Literal["memfd", "file"] = "memfd"
    path: AbsolutePath | None = None
    image: AbsolutePath | None = None


class ViommuSpecification(Table):
    """The virtual IOMMU, with the properties of semantics 4.2."""

    model: Literal["intel", "none"] = "intel"
    mode: ViommuMode = "scalable"
    aw_bits: AddressBits = 48
    reports_max_iova: bool = True
    caching_mode: bool = True
    dma_translation: bool = True
    first_stage: bool = False
    """Offer first-stage tables to the guest (x-flts); a passed-through device behind them would need nesting."""


class UserDriverSpecification(Table):
    """A driver in the guest's user space that takes a device and gives it back (semantics 4.1, 4.14).

    To take: the default domain -> blocked -> its own paging domain. To give back: paging -> blocked -> the default.
    """

    device: Name
    cycle_ms: int = Field(default=0, ge=0, le=3_600_000)
    """How often it takes the device by itself; 0: only when told to (`viaduct lab`)."""
    hold_ms: int = Field(default=200, ge=1, le=3_600_000)
    """How long it keeps it."""


class ChurnSpecification(Table):
    """Buffers that the guest kernel maps and unmaps for a device beside its workload."""

    device: Name
    maps_per_s: int = Field(default=1000, ge=1, le=1_000_000)
    buffer: Size = 64 << 10
    live: int = Field(default=32, ge=1, le=4096)
    """How many buffers are mapped at a time."""


class GuestSpecification(Table):
    """The guest's kernel command line, its CPU load and how it treats its devices; rates in bytes per second."""

    iommu: Literal["pt", "nopt"] = "nopt"
    vcpus: int = Field(default=1, ge=1, le=256)
    cpu_dirty_rate: Rate = 100 << 20
    working_set: Size = 256 << 20
    pattern: Literal["uniform", "zipf", "sequential"] = "uniform"
    seed: int = Field(default=1, ge=0, lt=1 << 63)
    user_driver: UserDriverSpecification | None = None
    churn: ChurnSpecification | None = None
    dma_after_unmap: bool = False
    """The guest's driver of the first device unmaps buffers that the device still writes: a guest's own bug."""


class RulesSpecification(Table):
    """Which version of the hypervisor's rules the machine follows: `vmm.rules` says what each switch stands for."""

    set: Literal["merged", "vfio-viommu-v3"] = "merged"
    query_before_unmap: bool = True
    no_clear_on_unmap_query: bool = True
    unmap_by_mapping: bool = True
    track_region_del: bool = True
    fail_on_query_error: bool = True
    large_memory_blocker: bool = True
    relaxed_viommu_check: bool = True
    type1_is_not_iommu_dirty_tracking: bool = True
    type1_dirty_pages_supported: bool = True
    logger_ranges_cover_iova_space: bool = True
    interrupt_only_viommu_allowed: bool = True
    address_width_blocker: bool = True
    unmap_events_carry_address: bool = True

    def rules(self) -> Rules:
        """Return the rules that the machine is built with."""
        return Rules(**{**self.model_dump(), "set": RuleSet(self.set)})


class DeviceSpecification(Table):
    """One passed-through device."""

    name: Name
    model: DeviceModel
    address: Address
    backend: Backend = "iommufd"
    host_iommu_dirty_tracking: bool = True
    """For iommufd only: without the key, false on type1, and for a mediated device."""
    device_dirty_tracking: bool = False
    """The device has a DMA logger; only `nic` can, and it has one where the key is left out."""
    enable_migration: Literal["auto", "on", "off"] = "auto"
    mediated: bool = False
    bypass_iommu: bool = False
    interrupt: Literal["msi", "intx"] | None = None
    """A message without the key, which machines are told of only where it says something: 0.1.0 does not know it."""
    p2p: bool = True
    """Its migration driver knows the P2P states; several devices migrate only if all of them do."""
    dma_rate: Rate = 50 << 20
    local_memory: Size = 256 << 20
    """Of `gpu` only: its own memory, which is its migration state."""

    @property
    def devfn(self) -> int:
        """Slot and function as PCI numbers them: slot x 8 + function."""
        return int(self.address[3:5], 16) << 3 | int(self.address[6])


class MachineSpecification(Table):
    """A whole machine."""

    name: Name
    kind: Literal["model", "qemu"] = "model"
    memory: MemorySpecification
    viommu: ViommuSpecification = ViommuSpecification()
    guest: GuestSpecification = GuestSpecification()
    rules: RulesSpecification = RulesSpecification()
    device: Annotated[tuple[DeviceSpecification, ...], Strict(strict=False), Field(max_length=16)] = ()
    qemu: QemuSpecification | None = None

    def to_json(self) -> bytes:
        """Return the specification with every default written out, as `parse_specification` reads it."""
        without = None if self.qemu is None else {*MODEL_TABLES}
        return self.model_dump_json(exclude_none=True, exclude=without).encode()


def load_specification(path: Path) -> MachineSpecification:
    """Read a specification from TOML; relative paths in it are taken from its own folder.

    Raises:
        InvalidDocument: With every fault at once.
    """
    document = read_toml(path)
    memory = document.get("memory")
    if isinstance(memory, dict):
        for key in ("path", "image"):
            if isinstance(memory.get(key), str) and memory[key]:
                memory[key] = str(path.parent.absolute() / memory[key])
    return check_specification(document, str(path))


def parse_specification(data: bytes) -> MachineSpecification:
    """Read a specification from JSON, trusting nothing in it.

    Raises:
        InvalidDocument: With every fault at once.
    """
    source = "specification"
    if len(data) > MAX_DOCUMENT:
        raise InvalidDocument([Fault(source, "", f"{len(data)} bytes", f"at most {MAX_DOCUMENT} bytes")])
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidDocument([Fault(source, "", f"Not JSON: {error}", "")]) from None
    if not isinstance(document, dict):
        raise InvalidDocument([Fault(source, "", "Not a JSON object", "")])
    return check_specification(document, source)


def check_specification(document: Mapping[str, object], file: str) -> MachineSpecification:
    """Check a document from anywhere; `file` is the name that its faults carry.

    Raises:
        InvalidDocument: With every fault at once, impossible combinations included.
    """
    is_qemu = document.get("kind") == "qemu"
    filled = _filled({**_NO_MODEL, **document} if is_qemu else document, MachineSpecification)
    faults: list[Fault] = []
    specification = None
    try:
        specification = MachineSpecification.model_validate(filled)
    except ValidationError as error:
        faults.extend(faults_of(error, file, MachineSpecification))
    seen = {fault.key for fault in faults}
    found = qemu_conflicts(document) if is_qemu else (*conflicts(filled), *conflicts_without_qemu(document))
    faults.extend(Fault(file, key, *what) for key, *what in found if key not in seen)
    if specification is None or faults:
        raise InvalidDocument(faults)
    return specification


def _filled(table: Mapping[str, object], model: type[BaseModel]) -> dict[str, object]:
    """Return the table with its defaults written out, so that combinations are judged as they will be used."""
    result = dict(table)
    if model is DeviceSpecification and (result.get("backend") == "type1" or result.get("mediated") is True):
        result.setdefault("host_iommu_dirty_tracking", False)
    if model is DeviceSpecification and result.get("model") == "nic":
        result.setdefault("device_dirty_tracking", True)
    for key, field in model.model_fields.items():
        inner = next((t for t in (field.annotation, *get_args(field.annotation)) if _is_table(t)), None)
        if key not in result and not field.is_required():
            result[key] = {} if inner is field.annotation and inner else field.get_default()
        value = result.get(key)
        if inner and isinstance(value, dict):
            result[key] = _filled(value, inner)
        elif inner and isinstance(value, list):
            result[key] = [_filled(item, inner) if isinstance(item, dict) else item for item in value]
    return result


def _is_table(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
