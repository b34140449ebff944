"""The demo's site: certificates, broker, two hosts with two agents each, an orchestrator; all real, all on loopback."""

import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from orchestrator.demo.daemons import Daemon, program, running
from orchestrator.demo.scene import (
    HOSTS,
    OPERATOR,
    ORCHESTRATOR,
    SITE,
    Addresses,
    DemoOptions,
    agent_text,
    site_text,
    tls_text,
)
from vm_migration.daemon.broker import local_broker
from vm_migration.daemon.configuration import Configuration, load
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue
from vm_migration.link.tls import TlsFiles


@contextlib.asynccontextmanager
async def demo_site(options: DemoOptions) -> AsyncIterator[Configuration]:
    """Run the site; yield the operator's configuration. Nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="viaduct-") as name:
        folder = Path(name)
        identities = {} if options.insecure else _identities(folder / "pki")
        async with local_broker() as broker:
            site = site_text(folder, broker, _free_addresses())
            daemons = _daemons(folder, site, identities, options)
            async with running(folder, daemons):
                path = _write(folder, OPERATOR, site + tls_text(identities.get(OPERATOR)))
                yield load(path, {}, insecure=options.insecure)


def _identities(folder: Path) -> dict[str, TlsFiles]:
    create_authority(folder, SITE)
    roles = {ORCHESTRATOR: Role.ORCHESTRATOR, OPERATOR: Role.OPERATOR, **dict.fromkeys(HOSTS, Role.HOST)}
    return {name: issue(folder, Identity(SITE, role, name)) for name, role in roles.items()}


def _daemons(folder: Path, site: str, identities: dict[str, TlsFiles], options: DemoOptions) -> list[Daemon]:
    plain = ["--insecure"] if options.insecure else []
    config = _write(folder, ORCHESTRATOR, site + tls_text(identities.get(ORCHESTRATOR)))
    daemons = [Daemon(ORCHESTRATOR, [program("viaduct"), "orchestrator", "--config", str(config), *plain])]
    for host in HOSTS:
        text = site + tls_text(identities.get(host)) + agent_text(folder, host, options.memory)
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


def _free_addresses() -> Addresses:
    """Return addresses that nobody listens on; a daemon that finds its own taken after all says so and ends."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(1 + 2 * len(HOSTS))]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        free = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    return Addresses(free[0], dict(zip(HOSTS, free[1::2], strict=True)), dict(zip(HOSTS, free[2::2], strict=True)))
