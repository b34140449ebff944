"""What the demo writes before it starts anything: the machine's specification and everybody's configuration. Pure."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from vm_migration.link.tls import TlsFiles
from vmm.assembly.quantity_text import format_rate, format_size
from vmm.assembly.specification import MachineSpecification, check_specification

SITE: Final = "demo"
MACHINE: Final = "qat-guest"
HOSTS: Final = ("host-a", "host-b")
ORCHESTRATOR: Final = "orchestrator"
OPERATOR: Final = "operator"

Backend = Literal["iommufd", "type1"]
Viommu = Literal["scalable", "legacy", "none"]
GuestIommu = Literal["pt", "nopt"]

_LARGEST_WORKING_SET: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What can be chosen: bytes and bytes a second."""

    memory: int
    cpu_dirty_rate: int
    dma_rate: int
    backend: Backend
    viommu: Viommu
    guest_iommu: GuestIommu
    seed: int
    insecure: bool


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everybody listens, as host:port."""

    orchestrator: str
    source: dict[str, str]
    dest: dict[str, str]


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


def site_text(folder: Path, broker: str, addresses: Addresses) -> str:
    """Return what every configuration of the site begins with."""
    hosts = "".join(
        f'[host.{host}]\nsource = "{addresses.source[host]}"\ndest = "{addresses.dest[host]}"\n' for host in HOSTS
    )
    return f"""[site]
name = "{SITE}"
store = "sqlite://{folder}/orchestrator.db"
mqtt = "{broker}"
orchestrator = "{addresses.orchestrator}"
{hosts}"""


def tls_text(files: TlsFiles | None) -> str:
    """Return the part that says who somebody is; nothing on plaintext."""
    if files is None:
        return ""
    return f'[tls]\nca = "{files.ca}"\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n'


def agent_text(folder: Path, host: str, memory: int) -> str:
    """Return the part that both agents of a host read; their budget holds the machine twice."""
    return f"""[agent]
host = "{host}"
state_dir = "{folder}/{host}/state"
run_dir = "{folder}/{host}/run"
memory_budget = "{format_size(2 * memory + (64 << 20))}"
"""
