"""What is wrong with one machine, from all of its copies: pure."""

from collections.abc import Iterator
from itertools import permutations
from typing import Final

from orchestrator.diagnosis.attempt_findings import attempt_findings
from orchestrator.diagnosis.finding import RECOVER, Code, Finding
from orchestrator.diagnosis.pairs import is_source, pairs
from orchestrator.diagnosis.views import Copy, MachineView, SiteView, owns
from vm_migration.handover.evidence import Process
from vm_migration.handover.record import Record
from vm_migration.handover.recovery import outranked
from vm_migration.handover.states import State

_CLAIMS: Final = frozenset({State.ACTIVATING, State.ACTIVE, State.RECLAIMED, State.TAKEN})
_MAY_NOT_RUN: Final = frozenset({State.PREPARED, State.READY, State.RELEASED, State.RETIRED})
_DEFINITE: Final = frozenset({Code.TWO_RUNNING, Code.CONTRADICTION, Code.OUTRANKED})


def machine_findings(site: SiteView, machine: MachineView) -> tuple[Finding, ...]:
    """Return what is wrong with a machine, the gravest first."""
    found = [*_two_running(machine), *_stray_runs(machine)]
    for pair in pairs(machine):
        found += attempt_findings(site, pair, machine.name)
    found += _claims(machine, found)
    doubtful = any(one.code in _DEFINITE for one in found)
    found += _unreadable(machine)
    found += _missing(site, machine)
    for copy in machine.copies.values():
        if copy.record is not None and not doubtful:
            found += _of_owner(site, machine, copy, copy.record)
    found += _complaints(machine, found)
    order = list(Code)
    return tuple(sorted(found, key=lambda one: order.index(one.code)))


def _two_running(machine: MachineView) -> Iterator[Finding]:
    running = [host for host, copy in machine.copies.items() if copy.runs]
    if len(running) > 1:
        text = f"{machine.name} runs on {' and '.join(running)} at once"
        keep = machine.owner.host if machine.owner is not None else "the host whose journal has the highest owned epoch"
        hint = f"Stop every copy but the one on {keep} at once, keep the disks, and report it: this must never happen"
        yield Finding(Code.TWO_RUNNING, text, hint, host=running[0], machine=machine.machine)


def _stray_runs(machine: MachineView) -> Iterator[Finding]:
    """Yield copies whose guest runs, or ran, although their journal says that it was given away, or not yet given."""
    for host, record in machine.records.items():
        copy = machine.copies[host]
        if not copy.strayed and not (copy.runs and record.state in _MAY_NOT_RUN):
            continue
        often = "once" if copy.strayed == 1 else f"{copy.strayed} times"
        did = "runs" if copy.runs else f"ran {often}, and was stopped again,"
        text = f"The copy of {machine.name} on {host} {did} although its journal says {record.state}"
        hint = (
            f"Find who let it run past Viaduct on {host}, as at a monitor of QEMU's own; look at what it wrote to disks"
        )
        yield Finding(Code.STRAY_RUN, text, hint, host=host, machine=machine.machine)


def _claims(machine: MachineView, found: list[Finding]) -> Iterator[Finding]:
    """Yield owners that another host's durable claim outranks, where no attempt that both know says so already."""
    if any(one.code in (Code.CONTRADICTION, Code.OUTRANKED) for one in found):
        return
    for (host, record), (other, claim) in permutations(machine.records.items(), 2):
        epoch = claim.epoch if claim.state is State.ACTIVATING else claim.owned_epoch
        if owns(record) and claim.state in _CLAIMS and outranked(record, claim.state, epoch):
            text = (
                f"{host} says that it owns {machine.name} at epoch {record.owned_epoch}, "
                f"and {other} owns it at epoch {epoch}"
            )
            hint = f"{RECOVER}; {host} keeps its copy paused until then"
            yield Finding(Code.OUTRANKED, text, hint, host=host, machine=machine.machine)


def _unreadable(machine: MachineView) -> Iterator[Finding]:
    for host, copy in machine.copies.items():
        if copy.record is None:
            text = f"The journal of {machine.name} on {host} tells nothing: {copy.unreadable}"
            hint = f"Keep the file, and repair the disk under state_dir on {host}; nothing is concluded meanwhile"
            yield Finding(Code.JOURNAL_UNREADABLE, text, hint, host=host, machine=machine.machine)


def _missing(site: SiteView, machine: MachineView) -> Iterator[Finding]:
    """Yield hosts that answer without a journal of a machine that they must have had."""
    for host, record in machine.records.items():
        peer = record.peer
        had = not is_source(record) or record.state in (State.RELEASED, State.RETIRED)
        if record.attempt and had and site.answers(peer) and peer not in machine.copies:
            text = f"{peer} has no journal of {machine.name}, and {host} has dealt with it about this machine"
            hint = f"Find out what became of state_dir on {peer}: without its journal it counts as silent"
            yield Finding(Code.JOURNAL_MISSING, text, hint, host=peer, machine=machine.machine)


def _of_owner(site: SiteView, machine: MachineView, copy: Copy, record: Record) -> Iterator[Finding]:
    if not record.owns:
        return
    host, name = copy.host, machine.name

    def finding(code: Code, text: str, hint: str) -> Finding:
        return Finding(code, text, hint, host=host, machine=machine.machine, attempt=record.open_attempt or "")

    if copy.process is Process.GONE:
        text = f"The process of {name} on {host} is gone, and its memory with it"
        by_agent = record.state in (State.ABORTED, State.RECLAIMED)
        hint = RECOVER if by_agent else f"viaduct machine destroy {name}; then create it again from its specification"
        yield finding(Code.MACHINE_GONE, text, hint)
    elif copy.process is Process.ALIVE and not copy.run_state:
        text = f"The process of {name} on {host} lives and does not answer"
        yield finding(Code.MACHINE_SILENT, text, f"Look at it on {host}; one that was frozen goes on with kill -CONT")
    elif copy.process is Process.ALIVE and copy.runs != record.was_running:
        owed = "run" if record.was_running else "be paused"
        text = f"{name} on {host} is to {owed}, and its process says {copy.run_state}"
        yield finding(Code.RUN_STATE_OWED, text, RECOVER)
    if not record.former_retired:
        text = f"{name} cannot leave {host}: {record.peer} has not yet said that it retired its old copy"
        off = f"where it is off for good: {RECOVER} --fenced {record.peer}"
        first = RECOVER if site.answers(record.peer) else f"Start the agents of {record.peer}"
        yield finding(Code.FORMER_SOURCE_OPEN, text, f"{first}; {off}" if not site.answers(record.peer) else first)


def _complaints(machine: MachineView, found: list[Finding]) -> Iterator[Finding]:
    """Yield what agents say that nothing else explains; what only they can see stands whatever else was found."""
    known = {one.code for one in found}
    for host, copy in machine.copies.items():
        code = Code.AGENT_COMPLAINS
        said = copy.complaint.partition(":")[0]
        if said in set(Code):
            code = Code(said)
        alone = code in (Code.CONTRADICTION, Code.OUTRANKED) and not known & _DEFINITE
        if copy.complaint and (alone or not found):
            hint = f"See the log of the agents on {host}; then: {RECOVER}"
            yield Finding(code, f"{host}: {copy.complaint}", hint, host=host, machine=machine.machine)
