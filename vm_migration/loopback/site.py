"""A site on loopback: certificates, the agents of some hosts, an orchestrator where one is asked for.

Everything lies in one folder; what is written here are the same files that a person would write.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue
from vm_migration.link.tls import TlsFiles
from vm_migration.loopback.daemons import Daemon, program, running
from vm_migration.loopback.ports import free_ports
from vmm.assembly.quantity_text import format_size

ORCHESTRATOR: Final = "orchestrator"
OPERATOR: Final = "operator"


@dataclass(frozen=True, slots=True)
class SitePlan:
    """What a site has. `memory_budget` is each host's, in bytes; an empty `broker` is none."""

    name: str
    hosts: Sequence[str]
    memory_budget: int
    broker: str = ""
    orchestrator: bool = False
    insecure: bool = False
    hooks: str = ""
    """The `[hooks]` section that everybody reads, where there is one."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everybody listens, as host:port."""

    orchestrator: str
    source: dict[str, str]
    dest: dict[str, str]


@contextlib.asynccontextmanager
async def running_site(folder: Path, plan: SitePlan) -> AsyncIterator[Path]:
    """Run a site in an empty folder; yield the operator's configuration file. No process of it is left afterwards.

    Raises:
        InternalError: A daemon did not start; what it said is in the message.
    """
    identities = {} if plan.insecure else _identities(folder / "pki", plan)
    site = site_text(folder, plan, _free_addresses(plan.hosts))
    path = _write(folder, OPERATOR, site + tls_text(identities.get(OPERATOR)))
    async with running(folder, _daemons(folder, plan, site, identities)):
        yield path


def site_text(folder: Path, plan: SitePlan, addresses: Addresses) -> str:
    """Return what every configuration of the site begins with."""
    mqtt = f'mqtt = "{plan.broker}"\n' if plan.broker else ""
    own = f'orchestrator = "{addresses.orchestrator}"\n' if plan.orchestrator else ""
    hosts = "".join(
        f'[host.{host}]\nsource = "{addresses.source[host]}"\ndest = "{addresses.dest[host]}"\n' for host in plan.hosts
    )
    return f'[site]\nname = "{plan.name}"\nstore = "sqlite://{folder}/orchestrator.db"\n{mqtt}{own}{hosts}{plan.hooks}'


def tls_text(files: TlsFiles | None) -> str:
    """Return the part that says who somebody is; nothing on plaintext."""
    if files is None:
        return ""
    return f'[tls]\nca = "{files.ca}"\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n'


def agent_text(folder: Path, host: str, memory_budget: int) -> str:
    """Return the part that both agents of a host read."""
    return f"""[agent]
host = "{host}"
state_dir = "{folder}/{host}/state"
run_dir = "{run_directory(folder, host)}"
memory_budget = "{format_size(memory_budget)}"
"""


def run_directory(folder: Path, host: str) -> Path:
    """Return where a host of the site keeps its running machines."""
    return folder / host / "run"


def _identities(folder: Path, plan: SitePlan) -> dict[str, TlsFiles]:
    create_authority(folder, plan.name)
    roles = {ORCHESTRATOR: Role.ORCHESTRATOR, OPERATOR: Role.OPERATOR, **dict.fromkeys(plan.hosts, Role.HOST)}
    return {name: issue(folder, Identity(plan.name, role, name)) for name, role in roles.items()}


def _daemons(folder: Path, plan: SitePlan, site: str, identities: dict[str, TlsFiles]) -> list[Daemon]:
    plain = ["--insecure"] if plan.insecure else []
    daemons = []
    if plan.orchestrator:
        config = _write(folder, ORCHESTRATOR, site + tls_text(identities.get(ORCHESTRATOR)))
        daemons.append(Daemon(ORCHESTRATOR, [program("viaduct"), "orchestrator", "--config", str(config), *plain]))
    for host in plan.hosts:
        text = site + tls_text(identities.get(host)) + agent_text(folder, host, plan.memory_budget)
        config = _write(folder, host, text)
        daemons += [
            Daemon(f"{host}-{side}", [program(f"viaduct-{side}-agent"), "--config", str(config), *plain])
            for side in ("source", "dest")
        ]
    return daemons


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def _free_addresses(hosts: Sequence[str]) -> Addresses:
    """Return addresses that nobody listens on; a daemon that finds its own taken after all says so and ends."""
    free = [f"127.0.0.1:{port}" for port in free_ports(1 + 2 * len(hosts))]
    return Addresses(free[0], dict(zip(hosts, free[1::2], strict=True)), dict(zip(hosts, free[2::2], strict=True)))
