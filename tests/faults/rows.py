"""The matrix as data: what is done, to whom, when, and when it is put right again. A row's text replays it.

kill:source-agent:handing-over:late      freeze:destination-vmm:ready:late      cut:between:1.250s:late
transfer:kill:destination-vmm:releasing:never      exec:kill:source-agent:resuming:soon
reboot:kill:destination-vfio-host:starting:never   reboot:cancel:attempt:ready:never
qemu:kill:source-agent:ready:soon      qemu-newer-direct-multifd:kill:source-agent:pre-copy:late

What begins with a mode is an update of the machine in that mode. Its destination is the machine's own host: the process
that has the machine is the source's, the one that is to have it the destination's. With one of QEMU's names the machine
is a real QEMU, of this Debian or a newer one, and sends itself over one connection, or over several (multifd), through
the agents or directly.
"""

from dataclasses import dataclass
from enum import StrEnum


class Ordered(StrEnum):
    """What is ordered of the machine."""

    MOVE = "move"
    TRANSFER = "transfer"
    """An update in that mode."""
    EXEC = "exec"
    """Another one; the destination's process rehearses only."""
    REBOOT = "reboot"
    """A third: the machine sleeps, waits in its files, and the destination's processes start from these."""
    QEMU = "qemu"
    QEMU_MULTIFD = "qemu-multifd"
    QEMU_NEWER = "qemu-newer"
    QEMU_NEWER_MULTIFD = "qemu-newer-multifd"
    QEMU_DIRECT = "qemu-direct"
    """One that connects to the other by itself: an agent is not in the stream's way, and not missed by it."""
    QEMU_DIRECT_MULTIFD = "qemu-direct-multifd"
    QEMU_NEWER_DIRECT = "qemu-newer-direct"
    QEMU_NEWER_DIRECT_MULTIFD = "qemu-newer-direct-multifd"


class Deed(StrEnum):
    """What is done."""

    KILL = "kill"
    FREEZE = "freeze"
    CUT = "cut"
    """A cable is pulled: nothing is heard any more, and nothing closes."""
    CANCEL = "cancel"
    """A person wishes for the attempt's end."""


class Victim(StrEnum):
    """To whom; the hosts and `between` have cables, the others are processes, and two are both."""

    SOURCE_VMM = "source-vmm"
    DESTINATION_VMM = "destination-vmm"
    SOURCE_VFIO_HOST = "source-vfio-host"
    DESTINATION_VFIO_HOST = "destination-vfio-host"
    SOURCE_AGENT = "source-agent"
    DESTINATION_AGENT = "destination-agent"
    ORCHESTRATOR = "orchestrator"
    LEADER = "leader"
    """The orchestrator that leads, of two over one etcd."""
    ETCD = "etcd"
    """The member that leads that etcd, of three."""
    ETCD_MAJORITY = "etcd-majority"
    """That member and another one: nobody can write then."""
    CLI = "cli"
    """The command, where no daemon runs: it drives its own attempt."""
    BROKER = "broker"
    SOURCE = "source"
    DESTINATION = "destination"
    BETWEEN = "between"
    """Source and destination do not hear each other; everybody else hears both."""
    ATTEMPT = "attempt"
    """Which is cancelled, and nothing else."""


class When(StrEnum):
    """A boundary at which an attempt can be held: what the journals say then is in tests.faults.holds.

    Those of an update are in tests.faults.update_holds.
    """

    QUEUED = "queued"
    PREFLIGHT = "preflight"
    BEGINNING = "beginning"
    PREPARING = "preparing"
    PREPARED = "prepared"
    BEGUN = "begun"
    PRE_COPY = "pre-copy"
    STOPPING = "stopping"
    VERIFYING = "verifying"
    READY = "ready"
    RELEASING = "releasing"
    HANDING_OVER = "handing-over"
    ACTIVE = "active"
    COMPLETED = "completed"
    STARTING = "starting"
    SWITCHING = "switching"
    RESUMING = "resuming"


class Back(StrEnum):
    """When the victim is back: restarted by its service manager, thawed, or plugged in again."""

    NEVER = "never"
    SOON = "soon"
    LATE = "late"
    """After whoever waits for it has given up, or has waited past its calls' deadlines."""
    LAST = "last"
    """After the longest patience that anybody has."""


MACHINES = (Victim.SOURCE_VMM, Victim.DESTINATION_VMM, Victim.SOURCE_VFIO_HOST, Victim.DESTINATION_VFIO_HOST)
AGENTS = (Victim.SOURCE_AGENT, Victim.DESTINATION_AGENT)
DRIVERS = (Victim.ORCHESTRATOR, Victim.LEADER, Victim.CLI)
PAIRED = (Victim.LEADER, Victim.ETCD, Victim.ETCD_MAJORITY)
"""What there is where two orchestrators share an etcd."""
CABLES = (Victim.SOURCE, Victim.DESTINATION, Victim.BETWEEN, Victim.ORCHESTRATOR, Victim.LEADER, Victim.BROKER)
_MOVE = tuple(When)[: tuple(When).index(When.COMPLETED) + 1]
_BEFORE_AN_UPDATE = (When.PREFLIGHT, When.BEGINNING)
_TRANSFER = (When.STARTING, When.PREPARED, When.SWITCHING, When.READY, When.RELEASING, When.RESUMING)
_EXEC = (When.STARTING, When.PREPARED, When.RESUMING)
_REBOOT = (When.SWITCHING, When.READY, When.RELEASING, When.STARTING, When.RESUMING)
QEMUS = tuple(ordered for ordered in Ordered if ordered.startswith(Ordered.QEMU))
BOUNDARIES = {
    Ordered.MOVE: _MOVE,
    Ordered.TRANSFER: (*_BEFORE_AN_UPDATE, *_TRANSFER),
    Ordered.EXEC: (*_BEFORE_AN_UPDATE, *_EXEC),
    Ordered.REBOOT: (*_BEFORE_AN_UPDATE, *_REBOOT),
    **dict.fromkeys(QEMUS, _MOVE[_MOVE.index(When.PREPARING) :]),
}
_ARRIVED = _MOVE[_MOVE.index(When.BEGUN) :]
_OF_AN_UPDATE = (
    Victim.SOURCE_VMM,
    Victim.DESTINATION_VMM,
    Victim.SOURCE_VFIO_HOST,
    Victim.SOURCE_AGENT,
    Victim.DESTINATION_AGENT,
    Victim.ORCHESTRATOR,
    Victim.LEADER,
    Victim.CLI,
)
_FROM_FILES = (When.STARTING, When.RESUMING)
"""When the processes that had a machine have ended, and others start from its files."""
_WITH_ANOTHER_PROCESS = {
    Ordered.TRANSFER: _TRANSFER,
    Ordered.EXEC: (When.STARTING, When.PREPARED),
    Ordered.REBOOT: _FROM_FILES,
}


@dataclass(frozen=True, order=True)
class Row:
    """One fault."""

    deed: Deed
    victim: Victim
    when: When | float
    """A boundary, or seconds after the order was given."""
    back: Back
    ordered: Ordered = Ordered.MOVE

    @property
    def updates(self) -> bool:
        """Whether the machine is updated, and not moved."""
        return self.ordered is not Ordered.MOVE and not self.qemu

    @property
    def in_files(self) -> bool:
        """Whether the machine is to wait in files: its RAM is in one, which all hosts of a fault site would share."""
        return self.ordered is Ordered.REBOOT

    @property
    def qemu(self) -> bool:
        """Whether the machine is a real QEMU."""
        return self.ordered in QEMUS

    @property
    def newer(self) -> bool:
        """Whether that QEMU is the newer one."""
        return self.ordered.startswith(Ordered.QEMU_NEWER)

    @property
    def direct(self) -> bool:
        """Whether it connects to the other one by itself."""
        return "-direct" in self.ordered

    @property
    def streams(self) -> int:
        """Over how many connections memory goes."""
        return 2 if self.ordered.endswith("-multifd") else 1

    def __str__(self) -> str:
        when = self.when.value if isinstance(self.when, When) else f"{self.when:.3f}s"
        words = f"{self.deed.value}:{self.victim.value}:{when}:{self.back.value}"
        return words if self.ordered is Ordered.MOVE else f"{self.ordered.value}:{words}"


def parse(text: str) -> Row:
    """Read a row's text; ValueError says what is wrong with it."""
    words = text.split(":")
    if words[0] in set(Ordered) - {Ordered.MOVE}:
        ordered, *words = words
    else:
        ordered = Ordered.MOVE
    if len(words) != 4:
        raise ValueError(f"{text} is not deed:victim:when:back, with what is ordered before it or without")
    deed, victim, when, back = words
    seconds = when.endswith("s") and when[:-1].replace(".", "", 1).isdecimal()
    moment = float(when[:-1]) if seconds else When(when)
    row = Row(Deed(deed), Victim(victim), moment, Back(back), Ordered(ordered))
    if not possible(row):
        raise ValueError(f"{text} cannot happen")
    return row


def possible(row: Row) -> bool:
    """Tell whether a row makes sense: there is such a process then, and such a way to be back."""
    if row.deed is Deed.CANCEL or row.victim is Victim.ATTEMPT:
        wished = row.deed is Deed.CANCEL and row.victim is Victim.ATTEMPT
        return wished and row.updates and row.back is Back.NEVER and _comes(row)
    return _fits_the_order(row) and _fits_the_victim(row)


def _fits_the_order(row: Row) -> bool:
    if row.qemu:
        return row.victim in AGENTS and row.deed is Deed.KILL and (row.back is Back.SOON or _outlived(row))
    return not row.updates or (_concerns_an_update(row) and row.deed is not Deed.CUT)


def _fits_the_victim(row: Row) -> bool:
    if row.deed is Deed.CUT:
        return row.victim in CABLES and row.back in (Back.LATE, Back.LAST) and _comes(row)
    if row.victim in (Victim.SOURCE, Victim.DESTINATION, Victim.BETWEEN) or not _comes(row):
        return False
    if row.deed is Deed.FREEZE:
        return row.back in (Back.LATE, Back.LAST)
    gone_for_good = row.victim in MACHINES or row.victim is Victim.CLI
    return (row.back is Back.NEVER) if gone_for_good else row.back in (Back.SOON, Back.LATE, Back.LAST)


def _concerns_an_update(row: Row) -> bool:
    """Tell whether an update has such a victim; only mode reboot has another host process."""
    anew = row.ordered is Ordered.REBOOT and row.victim is Victim.DESTINATION_VFIO_HOST
    return anew or row.victim in _OF_AN_UPDATE


def _outlived(row: Row) -> bool:
    """Tell whether a stream would go on that nobody asks about: its process calls it off before its agent is back."""
    here = row.direct and row.victim is Victim.SOURCE_AGENT
    return here and row.back is Back.LATE and row.when in (When.PRE_COPY, When.STOPPING)


def _comes(row: Row) -> bool:
    """Tell whether there is such a boundary, and such a victim at it; at a random moment it may be."""
    if not isinstance(row.when, When):
        return True
    return row.when in BOUNDARIES[row.ordered] and _is_there(row.victim, row.when, row.ordered)


def _is_there(victim: Victim, when: When, ordered: Ordered) -> bool:
    if victim in (Victim.DESTINATION_VMM, Victim.DESTINATION_VFIO_HOST):
        return when in _WITH_ANOTHER_PROCESS.get(ordered, _ARRIVED)
    if victim in (Victim.SOURCE_VMM, Victim.SOURCE_VFIO_HOST):
        if ordered is Ordered.REBOOT and when in _FROM_FILES:
            return False
        return when is not When.COMPLETED  # its copy is freed then
    return victim is not Victim.CLI or when not in (When.QUEUED, When.COMPLETED)  # it has no queue, and ends
