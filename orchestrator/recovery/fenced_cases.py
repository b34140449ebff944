"""What follows for one machine when an operator vouches that a host is off: pure. The table is fenced_plan's."""

import hmac
from collections.abc import Iterator
from typing import Final

from orchestrator.diagnosis.pairs import Pair, pairs
from orchestrator.diagnosis.views import Copy, MachineView, SiteView, owns
from orchestrator.recovery.fenced_word import Act, Journalled, NotPlanned, Planned, Word
from vm_migration.handover.evidence import Absence, Process, view
from vm_migration.handover.record import Record
from vm_migration.handover.secret import secret_hash
from vm_migration.handover.states import ARRIVING, OWNING, State

_HELD: Final = ARRIVING | OWNING
"""A copy is there, and whole or not, its attempt may yet make it the machine."""
_ENDED: Final[frozenset[State | Absence]] = frozenset(
    {State.ABORTED, State.LOST, State.TAKEN, Absence.PASSED, Absence.ABOVE}
)


def proven_gone(machine: MachineView, host: str) -> bool:
    """Tell whether a host that answers has proven that the machine's process ended while it was being started there."""
    return any(proven_by(pair) for pair in pairs(machine) if pair.destination_host == host)


def proven_by(pair: Pair) -> bool:
    """Tell the same of one attempt."""
    return pair.destination.sight is State.ACTIVATING and pair.destination.process is Process.GONE


def of_machine(site: SiteView, word: Word, machine: MachineView) -> Iterator[Planned | NotPlanned]:
    """Yield every step of a machine, and every reason why there is none."""
    up = site.hosts[word.fenced].is_up
    for pair in pairs(machine):
        if word.fenced not in (pair.source_host, pair.destination_host):
            continue
        if pair.leaving and pair.destination_host == word.fenced:
            yield from _leaving(word, machine, pair, up=up)
        elif pair.arriving and pair.source_host == word.fenced and not up:
            yield from _arriving(word, machine, pair)
        elif _given_to(machine, pair, word.fenced) and not up:
            text = f"{pair.source_host} gave it to {word.fenced}, and its only copy is there: nothing can start"
            yield Planned(Act.NOTHING, machine.machine, machine.name, word.fenced, text)
    owner = machine.owner
    if owner is not None and owner.record is not None and not up:
        record = owner.record
        if record.owns and not record.former_retired and record.peer == word.fenced:
            text = f"goes on on {owner.host} and may be moved again: {word.fenced} counts as retired"
            yield _planned(Act.NOTE_RETIRED, machine, owner.host, text, _own_pair(machine, record))


def _given_to(machine: MachineView, pair: Pair, host: str) -> bool:
    retired = pair.source.held and pair.source.sight is State.RETIRED
    return retired and pair.destination_host == host and machine.owner is None and not _newer(machine, pair)


def _newer(machine: MachineView, pair: Pair) -> bool:
    return any(record.epoch > pair.epoch for record in machine.records.values())


# the machine is here, and was to go to the host that is off


def _leaving(word: Word, machine: MachineView, pair: Pair, *, up: bool) -> Iterator[Planned | NotPlanned]:
    here = pair.source_host
    if pair.source.sight is not State.RELEASED:
        if not up:
            text = f"its attempt to move to {word.fenced} ends on {here}, where it goes on"
            yield _planned(Act.GO_ON, machine, here, text, pair)
        return
    if up and not proven_by(pair):
        return
    if proven_by(pair) and pair.source.process is Process.GONE:
        yield _write_off(word, machine, pair, f"its process ended on {here} too")
        return
    if pair.source.process is not Process.ALIVE:
        text = f"{here} released it to {word.fenced}, and the process on {here} is {pair.source.process}"
        yield _refusal(machine, f"{text}: no copy can start", f"Bring {word.fenced} back")
        return
    elsewhere = _elsewhere(machine, pair)
    if elsewhere:
        yield _refusal(machine, elsewhere, "viaduct doctor")
        return
    stop = f"stop {pair.source.pause}"
    missing = f"everything that the guest did on {word.fenced} after {stop}, if it ran there"
    if not word.may_miss_writes:
        text = f"{here} holds it as of {stop} and released it to {word.fenced}, where it may have run since"
        hint = f"Bring {word.fenced} back, or accept that writes may be missing: --may-miss-writes"
        yield _refusal(machine, text, hint)
        return
    yield _newer_copy(machine, pair, here) or _planned(
        Act.TAKE_AT_SOURCE, machine, here, f"starts on {here} again, as of {stop}", pair, missing=missing
    )


# the machine came from the host that is off


def _arriving(word: Word, machine: MachineView, pair: Pair) -> Iterator[Planned | NotPlanned]:
    here = pair.destination_host
    if pair.destination.sight is State.ACTIVATING:
        if pair.destination.process is Process.GONE:
            yield _write_off(word, machine, pair, f"the copy on {word.fenced} is gone with it")
        else:
            yield _planned(Act.GO_ON, machine, here, f"starts on {here}, which was told to", pair)
        return
    if pair.destination.process is Process.GONE or not (
        pair.destination.whole or pair.destination.sight is State.READY
    ):
        text = f"what came to {here} is not whole, and is discarded; its only whole copy was on {word.fenced}"
        yield _planned(Act.GO_ON, machine, here, text, pair)
        return
    elsewhere = _elsewhere(machine, pair)
    if elsewhere:
        yield _refusal(machine, elsewhere, "viaduct doctor")
        return
    journalled = None if word.journals is None else word.journals.get(machine.machine)
    if isinstance(journalled, Record):
        yield _by_journal(word, machine, pair, journalled)
    else:
        yield _without_journal(word, machine, pair, journalled)


def _write_off(word: Word, machine: MachineView, pair: Pair, gone: str) -> Planned | NotPlanned:
    here, elsewhere = pair.destination_host, _elsewhere(machine, pair)
    if elsewhere:
        return _refusal(machine, elsewhere, "viaduct doctor")
    text = f"its process ended on {here} while it was being started, and {gone}"
    newer = _newer_copy(machine, pair, here)
    if newer is not None:
        return newer
    if word.may_miss_writes:
        missing = "all of it: it has to be created again from its specification"
        return _planned(Act.WRITE_OFF, machine, here, f"{text}: it is written off as lost", pair, missing=missing)
    hint = (
        f"Bring {pair.source_host} back, if its copy may still be there; else write the machine off: --may-miss-writes"
    )
    return _refusal(machine, text, hint)


def _by_journal(word: Word, machine: MachineView, pair: Pair, record: Record) -> Planned | NotPlanned:
    here, stop = pair.destination_host, f"stop {pair.destination.pause}"
    there = view(record, pair.attempt, pair.epoch)
    same = there.pause == pair.destination.pause
    ready = pair.destination.sight is State.READY
    if there.sight in _ENDED:
        text = f"its copy on {here} is discarded: the attempt ended on {word.fenced} ({there.sight}), which kept it"
        return _planned(Act.DISCARD, machine, here, text, pair, journalled=record)
    if there.sight in (State.RELEASED, State.STOPPED) and not _same_secret(machine.copies[here], record):
        text = f"the secret in {word.fenced}'s journal is not that of the copy on {here}"
        return _refusal(machine, text, "Make sure that --journal names that host's own folder")
    if there.sight is State.RELEASED and same and ready:
        text = f"starts on {here}: {word.fenced} released it at {stop}, and nothing is missing"
        return _planned(Act.HAND_OFF, machine, here, text, pair, journalled=record)
    if there.sight is State.STOPPED and same and record.instance:
        text = f"starts on {here}: {word.fenced} had stopped it at {stop} for good, and nothing is missing"
        return _planned(Act.RELEASE_AND_HAND_OFF, machine, here, text, pair, journalled=record)
    text = (
        f"{word.fenced}'s journal says {there.sight} at stop {there.pause}, and {here} holds "
        f"{pair.destination.sight} at {stop}: they do not fit"
    )
    return _refusal(machine, text, f"Bring {word.fenced} back")


def _without_journal(
    word: Word, machine: MachineView, pair: Pair, journalled: Journalled | None
) -> Planned | NotPlanned:
    here, stop = pair.destination_host, f"stop {pair.destination.pause}"
    newer = _newer_copy(machine, pair, here) if word.may_miss_writes else None
    if newer is not None:
        return newer
    if word.may_miss_writes:
        missing = f"everything that the guest did on {word.fenced} after {stop}, if it went on there"
        text = f"starts on {here} as of {stop}, without {word.fenced}'s release"
        return _planned(Act.TAKE_AT_DESTINATION, machine, here, text, pair, missing=missing)
    if word.journals is None:
        why = f"only {word.fenced}'s journal can tell whether it released it"
    elif journalled is None:
        why = f"there is no journal of it in the folder of {word.fenced} that --journal names"
    else:
        why = str(journalled)
    hint = f"Mount {word.fenced}'s disk and name its journals: --journal PATH; or accept missing writes: "
    return _refusal(machine, f"{here} holds it whole as of {stop}, and {why}", f"{hint}--may-miss-writes")


def _same_secret(copy: Copy, record: Record) -> bool:
    expected = "" if copy.record is None else copy.record.secret_hash
    return hmac.compare_digest(secret_hash(bytes.fromhex(record.secret)).hex(), expected)


def _elsewhere(machine: MachineView, pair: Pair) -> str:
    """Say where the machine is owned at an epoch that this attempt's is not above."""
    for host, record in machine.records.items():
        inside = host in (pair.source_host, pair.destination_host)
        if not inside and (machine.copies[host].runs or (owns(record) and record.owned_epoch >= pair.epoch)):
            return f"{host} has it at epoch {record.owned_epoch}, and this attempt was at {pair.epoch}"
    return ""


def _newer_copy(machine: MachineView, pair: Pair, here: str) -> NotPlanned | None:
    """Refuse to take a copy while a host that answers holds one of a later attempt, which may yet be released to it."""
    for host, record in machine.records.items():
        if host != here and record.epoch > pair.epoch and record.state in _HELD:
            text = f"{host} holds a copy of a later attempt ({record.state}, epoch {record.epoch})"
            reason = f"{text}: the one on {here} is of epoch {pair.epoch}, and may not be the machine any more"
            return _refusal(
                machine, reason, f"Take that one, or have it end first: viaduct doctor shows what {host} has"
            )
    return None


def _own_pair(machine: MachineView, record: Record) -> Pair | None:
    return next((one for one in pairs(machine) if one.attempt == record.attempt), None)


def _planned(
    act: Act,
    machine: MachineView,
    host: str,
    message: str,
    pair: Pair | None,
    *,
    missing: str = "",
    journalled: Record | None = None,
) -> Planned:
    highest = max(machine.highest_epoch, 0 if journalled is None else journalled.highest_epoch)
    return Planned(
        act=act,
        machine=machine.machine,
        name=machine.name,
        host=host,
        message=message,
        missing=missing,
        pair=pair,
        journalled=journalled,
        highest_seen=highest,
    )


def _refusal(machine: MachineView, reason: str, hint: str) -> NotPlanned:
    return NotPlanned(machine.machine, machine.name, reason, hint)
