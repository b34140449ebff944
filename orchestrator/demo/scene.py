"""What the demo shows: its options, and the machine's specification that follows from them. Pure."""

import tomllib
from dataclasses import dataclass
from typing import Final, Literal

from vmm.assembly.quantity_text import format_rate, format_size
from vmm.assembly.specification import MachineSpecification, check_specification

SITE: Final = "demo"
MACHINE: Final = "qat-guest"
HOSTS: Final = ("host-a", "host-b")

Backend = Literal["iommufd", "type1"]
Viommu = Literal["scalable", "legacy", "none"]
GuestIommu = Literal["pt", "nopt"]

_LARGEST_WORKING_SET: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What can be chosen: bytes, bytes a second, and milliseconds."""

    memory: int
    cpu_dirty_rate: int
    dma_rate: int
    backend: Backend
    viommu: Viommu
    guest_iommu: GuestIommu
    seed: int
    insecure: bool
    downtime_limit_ms: int = 300


def specification_text(options: DemoOptions) -> str:
    """Return the machine's specification.

    A tracker that reports everything dirty for ever is refused on `auto`, as it should be: type1 says `on`.
    """
    working_set = min(_LARGEST_WORKING_SET, options.memory // 2)
    enable = "on" if options.backend == "type1" else "auto"
    viommu = 'model = "none"' if options.viommu == "none" else f'mode = "{options.viommu}"'
    return f"""name = "{MACHINE}"
[memory]
size = "{format_size(options.memory)}"
[viommu]
{viommu}
[guest]
iommu = "{options.guest_iommu}"
cpu_dirty_rate = "{format_rate(options.cpu_dirty_rate)}"
working_set = "{format_size(working_set)}"
seed = {options.seed}
[[device]]
name = "qat0"
model = "qat"
address = "00:04.0"
backend = "{options.backend}"
enable_migration = "{enable}"
dma_rate = "{format_rate(options.dma_rate)}"
"""


def specification(options: DemoOptions) -> MachineSpecification:
    """Return the machine's specification, checked.

    Raises:
        InvalidDocument: The options make an impossible machine.
    """
    return check_specification(tomllib.loads(specification_text(options)), "the demo's machine")
