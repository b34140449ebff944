"""What follows for every machine when an operator vouches that a host is off: pure, and shown before anything is done.

::

    here                                   at HOST                                   what follows
    READY                                  RELEASED at that stop (--journal)         hand-off: nothing is missing
    READY, or whole                        STOPPED at that stop (--journal)          RELEASED is appended, hand-off
    READY, or whole                        ABORTED, LOST, gone on (--journal)        the copy here is discarded
    READY, or whole                        not known                                 taken, with --may-miss-writes
    RELEASED to HOST                       not known, or its process proven gone     taken back, with --may-miss-writes
    being started, its process gone            gone with it                          LOST, with --may-miss-writes
    owned, came from HOST                                                            HOST counts as retired
    on its way to HOST, or arriving        not known                                 the agent here ends it by itself
    nothing, or given to HOST              the only copy                             nothing can start

A copy is taken only where it is the newest: while a host that answers holds a copy of a later attempt, which its source
may still release, an older one is refused (ADR 0009). Anything else is refused with its reason. A host that answers is
not off: then only the machine whose process it has proven gone in the middle of being started can be taken back.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Final

from orchestrator.diagnosis.views import MachineView, SiteView
from orchestrator.recovery.fenced_cases import of_machine, proven_gone
from orchestrator.recovery.fenced_word import Act, NotPlanned, Plan, Planned, Word
from vm_migration.errors import Refused

_TAKES: Final = frozenset({Act.TAKE_AT_DESTINATION, Act.TAKE_AT_SOURCE, Act.WRITE_OFF})


def plan(site: SiteView, word: Word, machines: Collection[str] | None = None) -> Plan:
    """Return what follows for these machines, or for all.

    Raises:
        Refused: A host answers that is said to be off, or one is silent that nobody vouched for.
    """
    wanted = [one for one in site.machines if machines is None or one.machine in machines]
    steps: list[Planned] = []
    refused: list[NotPlanned] = []
    for machine in wanted:
        for found in of_machine(site, word, machine):
            if isinstance(found, Planned):
                # A host that is off may have seen an epoch that no journal here has: TAKEN stands above it.
                seen = max(found.highest_seen, word.epochs.get(machine.machine, 0))
                steps.append(replace(found, highest_seen=seen))
            else:
                refused.append(found)
    known = {one.machine for one in site.machines}
    steps += (one for one in _only_there(word, known) if machines is None or one.machine in machines)
    _require_off(site, word, wanted, steps)
    return Plan(tuple(steps), tuple(refused))


def _require_off(site: SiteView, word: Word, machines: Collection[MachineView], steps: Collection[Planned]) -> None:
    proven = any(proven_gone(machine, word.fenced) for machine in machines)
    if site.hosts[word.fenced].is_up and not proven:
        running = [one.name for one in site.machines if _runs_at(one, word.fenced)]
        what = f" and runs {', '.join(running)}" if running else ""
        hint = "Let it settle what is open: viaduct recover; or turn it off first"
        raise Refused("host-answers", f"{word.fenced} answers{what}: it is not off", hint)
    lying = [host for host in word.also_off if site.hosts[host].is_up]
    if lying:
        text = f"{', '.join(lying)} answers: it is not off"
        raise Refused("host-answers", text, "Name only hosts that are off with --also-off")
    others = [host for host in site.silent if host not in (word.fenced, *word.also_off)]
    if others and any(one.act in _TAKES for one in steps):
        text = f"{', '.join(others)} is silent, and may have a newer copy of what would be taken"
        hint = " ".join(f"--also-off {host}" for host in others)
        raise Refused("host-silent", text, f"Bring it back; where it is off for good too: {hint}")


def _runs_at(machine: MachineView, host: str) -> bool:
    copy = machine.copies.get(host)
    return copy is not None and copy.runs


def _only_there(word: Word, seen: Collection[str]) -> Iterator[Planned]:
    for machine, name in word.owned.items():
        if machine not in seen:
            text = f"its only copy is on {word.fenced}: nothing can start"
            yield Planned(Act.NOTHING, machine, name, word.fenced, text)
