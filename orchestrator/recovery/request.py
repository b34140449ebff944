"""What `viaduct recover` was asked for, checked: everything that is wrong with it is told at once."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.diagnosis.views import MachineView, SiteView
from orchestrator.inventory import ambiguous_machine
from orchestrator.recovery.journal_folder import JournalFolder
from vm_migration.errors import InvalidInput
from vm_migration.handover.states import State

_OVER: Final = frozenset({State.DESTROYED, State.LOST})


@dataclass(frozen=True, slots=True)
class Request:
    """The options of one run."""

    fenced: str | None = None
    journal: Path | None = None
    machine: str | None = None
    also_off: tuple[str, ...] = ()
    may_miss_writes: bool = False
    yes: bool = False
    files_gone: bool = False

    @property
    def folder(self) -> JournalFolder | None:
        """The journals of the host that is off, where they were named."""
        return None if self.journal is None else JournalFolder(self.journal)


def require_right(request: Request, hosts: Collection[str]) -> None:
    """Accept options that make sense at a site of these hosts.

    Raises:
        InvalidInput: Names everything that does not.
    """
    faults = list(_faults(request, hosts))
    if len(faults) == 1:
        raise faults[0]
    if faults:
        text = "; ".join(fault.message for fault in faults)
        hints = "; ".join(dict.fromkeys(fault.hint for fault in faults))
        raise InvalidInput("invalid-options", f"{len(faults)} faults: {text}", hints)


def chosen(request: Request, site: SiteView, elsewhere: dict[str, str]) -> frozenset[str] | None:
    """Return the machines that were named, by name or UUID, or None for all; `elsewhere` is known without its host.

    Raises:
        InvalidInput: Nobody has such a machine.
        Refused: Its files are said to be gone, and several that may be left have its name.
    """
    if request.machine is None:
        return None
    names = {**elsewhere, **{one.machine: one.name for one in site.machines}}
    found = frozenset(machine for machine, name in names.items() if request.machine in (machine, name))
    if not found:
        silent = [host for host in site.silent if host != request.fenced]
        unheard = f", and {', '.join(silent)} did not answer" if silent else ""
        raise InvalidInput(
            "unknown-machine", f'No host that answers has a machine "{request.machine}"{unheard}', "See: viaduct doctor"
        )
    left = [one for one in site.machines if one.machine in found and not _over(one)]
    if request.files_gone and len(left) > 1:
        raise ambiguous_machine(request.machine, [(", ".join(one.copies), one.machine) for one in left])
    return found


def _over(machine: MachineView) -> bool:
    """Tell whether nothing is left of a machine that anybody could give up."""
    return all(copy.record is not None and copy.record.state in _OVER for copy in machine.copies.values())


def _faults(request: Request, hosts: Collection[str]) -> Iterator[InvalidInput]:
    named = [request.fenced] if request.fenced is not None else []
    for host in dict.fromkeys([*named, *request.also_off]):
        if host not in hosts:
            known = ", ".join(sorted(hosts))
            yield InvalidInput("unknown-host", f'Host "{host}" is not configured (known: {known})', "Name one of these")
    if request.fenced is not None and request.fenced in request.also_off:
        text = f"{request.fenced} is named twice as off"
        yield InvalidInput("host-twice", text, "Name only other hosts with --also-off")
    if request.fenced is None:
        needless = {
            "--journal": request.journal is not None,
            "--may-miss-writes": request.may_miss_writes,
            "--also-off": bool(request.also_off),
            "--yes": request.yes and not request.files_gone,
        }
        given = [option for option, there in needless.items() if there]
        if given:
            text = f"{', '.join(given)} without --fenced"
            yield InvalidInput("needs-fenced", text, "Name the host that is off: --fenced HOST")
    elif request.also_off and not request.may_miss_writes:
        text = "--also-off without --may-miss-writes"
        yield InvalidInput("needs-may-miss-writes", text, "Other hosts count only where writes may be missing")
    if request.files_gone and (request.machine is None or request.fenced is not None):
        text = "--files-gone is of one machine, and of no host that is off"
        yield InvalidInput("needs-machine", text, "Name the machine that waited in them: --machine NAME")
    if request.fenced is not None and not set(hosts) - {request.fenced, *request.also_off}:
        text = "Every configured host is said to be off: none is left to run anything"
        yield InvalidInput("nobody-left", text, "Name only hosts that are off, and configure one that is not")
    folder = request.folder
    fault = None if folder is None else folder.fault()
    if fault is not None:
        yield fault
