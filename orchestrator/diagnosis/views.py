"""The site at one look: what each host answered of its journals, its machine processes and what is left over.

A host that is silent, a journal that is missing and one that cannot be read are three ways of knowing nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import msgspec

from vm_migration.api.v1 import types_pb2
from vm_migration.errors import MigrationError
from vm_migration.handover.evidence import Process, SideView, unreachable, view
from vm_migration.handover.record import Record, decode

OTHER_VERSION: Final = "not-offered"
"""What an agent answers that does not know the call."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One machine's journal at one host, and the process that it names."""

    host: str
    machine: str
    name: str = ""
    record: Record | None = None
    """The last record, without its secret; None where it cannot be read."""
    unreadable: str = ""
    process: Process = Process.UNKNOWN
    run_state: str = ""
    """running | paused | incoming, as the process says; empty where it was not heard."""
    pause: int = 0
    controller: int = 0
    complaint: str = ""
    strayed: int = 0
    """How often its guest ran past the handover, as the process says that has stopped it."""

    @property
    def runs(self) -> bool:
        """Whether its process said that it runs."""
        return self.process is Process.ALIVE and self.run_state == "running"

    def side(self, attempt: str, epoch: int) -> SideView:
        """Return this copy as one side of an attempt."""
        if self.record is None:
            return unreachable(attempt, self.process)
        return view(self.record, attempt, epoch, self.process)


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something of a machine that no journal of its host accounts for; `pid` 0 for a folder."""

    machine: str
    kind: str
    pid: int
    path: str


@dataclass(frozen=True, slots=True)
class Told:
    """How one agent answered; `version` where it did.

    `ahead` is by how many seconds its host's clock is before this one's, behind where it is negative; 0 where the agent
    does not tell, as one of 0.1.0.
    """

    error: MigrationError | None = None
    version: str = ""
    ahead: float = 0.0

    @property
    def word(self) -> str:
        """`answers`, or the code of why it does not."""
        return "answers" if self.error is None else self.error.code


@dataclass(frozen=True, slots=True)
class HostView:
    """One configured host."""

    host: str
    source: Told
    dest: Told
    copies: Mapping[str, Copy] = field(default_factory=dict)
    leftovers: tuple[Leftover, ...] = ()

    @property
    def answers(self) -> bool:
        """Whether either agent told what the host has."""
        return self.source.error is None or self.dest.error is None

    @property
    def is_up(self) -> bool:
        """Whether anybody answered at all, if only that it does not know the call."""
        return any(told.error is None or told.error.code == OTHER_VERSION for told in (self.source, self.dest))


@dataclass(frozen=True)
class MachineView:
    """One machine at all hosts that have a journal of it."""

    machine: str
    copies: Mapping[str, Copy]

    @cached_property
    def name(self) -> str:
        """Its name, or the start of its UUID where no specification tells one."""
        return next((copy.name for copy in self.copies.values() if copy.name), self.machine[:8])

    @property
    def records(self) -> dict[str, Record]:
        """The journals that can be read, by host."""
        return {host: copy.record for host, copy in self.copies.items() if copy.record is not None}

    @property
    def highest_epoch(self) -> int:
        """The highest epoch that any of them has seen."""
        return max((record.highest_epoch for record in self.records.values()), default=0)

    @property
    def owner(self) -> Copy | None:
        """The copy of the host that owns the machine, where one does: of several that say so, the highest epoch's."""
        owning = [(record.owned_epoch, host) for host, record in self.records.items() if owns(record)]
        return self.copies[max(owning)[1]] if owning else None


@dataclass(frozen=True)
class SiteView:
    """All configured hosts."""

    hosts: Mapping[str, HostView]

    @cached_property
    def machines(self) -> tuple[MachineView, ...]:
        """Every machine that any host has a journal of, by name."""
        found: dict[str, dict[str, Copy]] = {}
        for host in self.hosts.values():
            for machine, copy in host.copies.items():
                found.setdefault(machine, {})[host.host] = copy
        views = (MachineView(machine, copies) for machine, copies in found.items())
        return tuple(sorted(views, key=lambda one: (one.name, one.machine)))

    def answers(self, host: str) -> bool:
        """Tell whether a host told what it has; one that is not configured told nothing."""
        return host in self.hosts and self.hosts[host].answers

    @property
    def silent(self) -> tuple[str, ...]:
        """The hosts of which nothing is known."""
        return tuple(name for name, host in self.hosts.items() if not host.answers)


def owns(record: Record) -> bool:
    """Tell whether a record says that the machine is its host's, also while it is being copied away."""
    return record.owns or record.state in ("OUTGOING", "STOPPED")


def copy_from(host: str, message: types_pb2.MachineCustody) -> Copy:
    """Read one custody; a record that this version cannot read says so."""
    record, unreadable = None, message.unreadable
    if message.record:
        try:
            record = decode(message.record.encode()).public()
        except msgspec.DecodeError as error:
            unreadable = f"Its record is not one of this version: {error}"
    return Copy(
        host=host,
        machine=message.machine,
        name=message.name,
        record=record,
        unreadable=unreadable,
        process=Process(message.process) if message.process in set(Process) else Process.UNKNOWN,
        run_state=message.run_state,
        pause=message.pause,
        controller=message.controller,
        complaint=message.complaint,
        strayed=message.strayed,
    )


def merged(first: Mapping[str, Copy], second: Mapping[str, Copy]) -> dict[str, Copy]:
    """Return what the two agents of one host found: the newer record of each machine, and both complaints."""
    found = dict(first)
    for machine, copy in second.items():
        known = found.get(machine)
        if known is None:
            found[machine] = copy
            continue
        newer = copy if _sequence(copy) > _sequence(known) else known
        complaints = dict.fromkeys(one.complaint for one in (known, copy) if one.complaint)
        found[machine] = replace(newer, complaint="; ".join(complaints))
    return found


def _sequence(copy: Copy) -> int:
    return -1 if copy.record is None else copy.record.sequence
