"""A site for tests: hosts on loopback with mutual TLS, and the certainty that nothing of it is left behind."""

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.agents import Agents, HostAddresses
from tests.system.daemons import STOP_SECONDS, Daemon, launch, program
from tests.system.processes import ended, mapping_ram, naming
from vm_migration.handover.journal import read_last
from vm_migration.handover.journal_errors import JournalUnreadable
from vm_migration.handover.record import Record
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue
from vm_migration.link.tls import TlsFiles
from vm_migration.loopback.ports import free_ports
from vm_migration.machine.run_directory import Instance, MachineDirectory, RunDirectory

SITE = "test"
OWN_HOST = "host-of-the-test"
"""Has no daemons: the test itself is its source agent."""
ROLES = {
    "host-a": Role.HOST,
    "host-b": Role.HOST,
    "host-c": Role.HOST,
    OWN_HOST: Role.HOST,
    "operator": Role.OPERATOR,
    "orchestrator": Role.ORCHESTRATOR,
    "viewer": Role.VIEWER,
}
SIDES = ("source", "dest")


@dataclass
class Site:
    """Configurations of some hosts, and their daemons, which are started when they are first asked for."""

    folder: Path
    budgets: dict[str, str]
    broker: str = ""
    hooks: str = ""
    """The `[hooks]` section that everybody reads, where there is one."""
    identities: dict[str, TlsFiles] = field(default_factory=dict)
    addresses: dict[str, HostAddresses] = field(default_factory=dict)
    daemons: dict[tuple[str, str], Daemon] = field(default_factory=dict)

    def __post_init__(self) -> None:
        create_authority(self.folder / "pki", SITE)
        self.identities = {name: issue(self.folder / "pki", Identity(SITE, role, name)) for name, role in ROLES.items()}
        self.addresses = self.find_addresses()
        for name in (*self.budgets, "operator"):
            self.configuration(name).write_text(self._text(name))
        for host in self.budgets:
            for side in SIDES:
                command = [*self.inside(host), program(f"viaduct-{side}-agent"), "--config"]
                command.append(str(self.configuration(host)))
                self.daemons[host, side] = Daemon(f"{host}-{side}", command, self.folder)

    def find_addresses(self) -> dict[str, HostAddresses]:
        """Return where the hosts' agents will listen."""
        ports = iter(free_ports(2 * len(self.budgets)))
        return {host: HostAddresses(f"127.0.0.1:{next(ports)}", f"127.0.0.1:{next(ports)}") for host in self.budgets}

    def inside(self, host: str) -> list[str]:
        """Return the command that puts another command on a host."""
        return []

    def configuration(self, name: str) -> Path:
        return self.folder / f"{name}.toml"

    def agents(self, name: str = "operator") -> Agents:
        """Return the site's agents as seen with somebody's certificate."""
        return Agents(self.addresses, self.identities[name])

    def source(self, host: str) -> Daemon:
        return self.daemons[host, "source"]

    def dest(self, host: str) -> Daemon:
        return self.daemons[host, "dest"]

    def run(self, *hosts: str) -> None:
        """Have every daemon of these hosts run."""
        launch([self.daemons[host, side] for host in hosts for side in SIDES if not self.daemons[host, side].running])

    def stop(self, *hosts: str) -> None:
        """Have no daemon of these hosts run."""
        for host in hosts:
            for side in SIDES:
                self.daemons[host, side].stop()

    # what lies on the hosts' disks and in their memory

    def journals(self, host: str) -> Path:
        return self.folder / host / "state" / "journal"

    def record(self, host: str, machine: str) -> Record | None:
        try:
            return read_last(self.journals(host), machine)
        except JournalUnreadable:
            return None

    def states(self, host: str, machine: str) -> list[str]:
        """Return every state that a host's journal of a machine holds, in order, without repeats."""
        text = b"".join(path.read_bytes() for path in self.journals(host).glob(f"*{machine}*"))
        found = [part.partition(b'"')[0].decode() for part in text.split(b'"state":"')[1:]]
        return [state for index, state in enumerate(found) if index == 0 or found[index - 1] != state]

    def written(self) -> dict[str, bytes]:
        """Return all journals of all hosts, to be compared."""
        folders = [self.journals(host) for host in self.budgets]
        return {str(path): path.read_bytes() for folder in folders if folder.is_dir() for path in folder.iterdir()}

    def directory(self, host: str, machine: str) -> MachineDirectory:
        return RunDirectory(self.folder / host / "run").of_text(machine)

    def instance(self, host: str, machine: str) -> Instance:
        instance = self.directory(host, machine).instance()
        assert instance is not None, f"{machine} is not on {host}"
        return instance

    def machines_at(self, host: str) -> list[str]:
        return [str(each.machine) for each in RunDirectory(self.folder / host / "run").all()]

    def agent_pids(self) -> dict[int, str]:
        return {daemon.pid: daemon.name for daemon in self.daemons.values() if daemon.running}

    def holders_of_ram(self, name: str) -> list[str]:
        """Return the agents that map a machine's RAM."""
        return [agent for pid, agent in self.agent_pids().items() if mapping_ram(pid, name)]

    # its end

    def remains_at_last(self) -> list[str]:
        """Return what is still left when the last attempts have tidied up behind themselves."""
        until = time.monotonic() + STOP_SECONDS
        while (left := self.remains()) and time.monotonic() < until:
            time.sleep(0.02)  # /proc has no event for it
        return left

    def remains(self) -> list[str]:
        """Return what a test has left behind, in words; nothing is expected."""
        folders = [
            f"run directory of {machine} on {host}" for host in self.budgets for machine in self.machines_at(host)
        ]
        processes = [f"process {pid}: {words}" for pid, words in naming(self.folder, set(self.agent_pids())).items()]
        held = [f"RAM mapped by {agent}" for pid, agent in self.agent_pids().items() if mapping_ram(pid, "")]
        return folders + processes + held

    def sweep(self) -> None:
        """End everything but the daemons, by its id, and forget it."""
        for pid in naming(self.folder, set(self.agent_pids())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            ended(pid, STOP_SECONDS)
        for host in self.budgets:
            for directory in RunDirectory(self.folder / host / "run").all():
                directory.remove()

    def close(self) -> None:
        for daemon in self.daemons.values():
            daemon.stop()
        self.sweep()

    def _text(self, name: str) -> str:
        files = self.identities[name]
        hosts = "".join(
            f'[host.{host}]\nsource = "{each.source}"\ndest = "{each.dest}"\n' for host, each in self.addresses.items()
        )
        mqtt = f'mqtt = "{self.broker}"\n' if self.broker else ""
        text = (
            f'[site]\nname = "{SITE}"\nstore = "sqlite://{self.folder}/orchestrator.db"\n{mqtt}{hosts}'
            f'[tls]\nca = "{files.ca}"\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n'
        )
        text += self.hooks
        if name not in self.budgets:
            return text
        place = self.folder / name
        return text + (
            f'[agent]\nhost = "{name}"\nstate_dir = "{place}/state"\nrun_dir = "{place}/run"\n'
            f'memory_budget = "{self.budgets[name]}"\n'
        )
