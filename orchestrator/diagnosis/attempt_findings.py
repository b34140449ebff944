"""What is wrong with one attempt, from what follows for it: pure. The rows are handover.md's, by way of `decide`."""

from collections.abc import Callable, Iterator
from typing import Final

from orchestrator.diagnosis.finding import RECOVER, Code, Finding
from orchestrator.diagnosis.pairs import Pair
from orchestrator.diagnosis.views import SiteView
from vm_migration.handover.evidence import Absence, Process
from vm_migration.handover.recovery import Action
from vm_migration.handover.states import State

_RETIRES: Final = frozenset({Action.RETIRE_SOURCE, Action.RETIRE_DESTINATION})
_TAKEN: Final = frozenset({State.TAKEN, Absence.ABOVE})
_LOGS: Final = "Pause both by hand where they run, keep both, and compare both journals: docs/recovery.md"


def attempt_findings(site: SiteView, pair: Pair, name: str) -> Iterator[Finding]:
    """Yield what is wrong with an attempt of the machine of that name."""
    decision = pair.decision
    ended = not pair.open
    if pair.update:
        if pair.open:
            yield _updating(site, pair, name)
        return
    if Action.PAGE in decision.actions:
        yield _contradiction(pair, name)
    elif Action.RECOVER in decision.actions:
        yield _activation_unknown(site, pair, name)
    elif _TAKEN & {pair.source.sight, pair.destination.sight}:
        yield from _outranked(pair, name)
    elif ended:
        return
    elif pair.source.sight is Absence.UNREACHABLE:
        yield from _without_source(site, pair, name)
    elif pair.leaving:
        yield _leaving(site, pair, name)
    else:
        yield _arriving(pair, name)


def _updating(site: SiteView, pair: Pair, name: str) -> Finding:
    here = pair.source_host
    if site.hosts[here].source.error is not None:
        text = f"{name} is in the middle of an update on {here}, and its source agent does not answer"
        return _finding(pair, Code.HANDOVER_WAITING, text, f"Start viaduct-source-agent on {here}", host=here)
    text = f"{name} goes on in another process on {here} ({pair.source.sight})"
    return _finding(pair, Code.ATTEMPT_OPEN, text, f"viaduct watch {pair.attempt[:8]}", notice=True)


def _contradiction(pair: Pair, name: str) -> Finding:
    text = (
        f"The journals of {name} contradict each other: {pair.source_host} says {pair.source.sight}, "
        f"{pair.destination_host} says {pair.destination.sight}"
    )
    return _finding(pair, Code.CONTRADICTION, text, _LOGS)


def _activation_unknown(site: SiteView, pair: Pair, name: str) -> Finding:
    text = (
        f"The process of {name} ended on {pair.destination_host} while it was being started there: "
        "nobody can know whether the guest ran"
    )
    if site.answers(pair.source_host):
        hint = f"Look at {pair.source_host}'s copy, then: {RECOVER} --fenced {pair.destination_host} --may-miss-writes"
    else:
        off = f"{RECOVER} --fenced {pair.source_host} --may-miss-writes"
        hint = f"Bring {pair.source_host} back: it keeps the copy that was made to leave; off for good: {off}"
    return _finding(pair, Code.ACTIVATION_UNKNOWN, text, hint, host=pair.destination_host)


def _outranked(pair: Pair, name: str) -> Iterator[Finding]:
    if not _RETIRES & set(pair.decision.actions) and Action.DISCARD_DESTINATION not in pair.decision.actions:
        return
    at_source = Action.RETIRE_SOURCE in pair.decision.actions
    loser, winner = pair.source_host, pair.destination_host
    if not at_source:
        loser, winner = winner, loser
    text = f"{winner} took {name} over by an operator's word; the copy on {loser} is still to be retired"
    yield _finding(pair, Code.OUTRANKED, text, RECOVER, host=loser)


def _without_source(site: SiteView, pair: Pair, name: str) -> Iterator[Finding]:
    here, there, side = pair.destination_host, pair.source_host, pair.destination
    back = _bring_back(site, there)
    match side.sight:
        case State.PREPARED | State.READY if side.process is Process.GONE:
            yield _finding(pair, Code.ABANDONED_IMAGE, f"The copy of {name} on {here} is gone; it never ran", RECOVER)
        case State.READY:
            text = f"{here} holds {name} whole and does not run it: {there} has to release it, and {_why(site, there)}"
            hint = f"{back}; where it is off for good: {RECOVER} --fenced {there}"
            yield _finding(pair, Code.HANDOVER_WAITING, text, hint, host=there)
        case State.PREPARED if side.whole:
            text = f"{here} has received {name} whole, and {there}, which knows what became of it, {_why(site, there)}"
            hint = f"{back}; where it is off for good: {RECOVER} --fenced {there}"
            yield _finding(pair, Code.HANDOVER_WAITING, text, hint, host=there)
        case State.ACTIVATING:
            text = f"{here} was told to start {name} and has not yet said that it runs"
            yield _finding(pair, Code.HANDOVER_WAITING, text, RECOVER, host=here)
        case _:
            text = f"{here} is receiving {name} from {there}, which {_why(site, there)}; it gives up by itself"
            yield _finding(pair, Code.ATTEMPT_OPEN, text, back, notice=True)


def _leaving(site: SiteView, pair: Pair, name: str) -> Finding:
    here, there, side = pair.source_host, pair.destination_host, pair.source
    if side.sight is State.RELEASED:
        return _released(site, pair, name)
    if side.process is Process.GONE:
        if Action.LOSE_SOURCE in pair.decision.actions and Action.LOSE_DESTINATION not in pair.decision.actions:
            text = f"The process of {name} ended on {here}, and no whole copy is anywhere"
            return _finding(pair, Code.MACHINE_GONE, text, f"{RECOVER} writes it down; then create it again", host=here)
        text = f"The process of {name} ended on {here} after it had stopped; {there} {_has(pair)}"
        hint = RECOVER if site.answers(there) else _bring_back(site, there)
        return _finding(pair, Code.HANDOVER_WAITING, text, hint, host=there)
    if side.sight is State.STOPPED and site.hosts[here].source.error is not None:
        text = f"{name} stands still on {here} in the middle of a migration, and its source agent does not answer"
        return _finding(pair, Code.HANDOVER_WAITING, text, f"Start viaduct-source-agent on {here}", host=here)
    text = f"{name} is on its way from {here} to {there} ({side.sight})"
    return _finding(pair, Code.ATTEMPT_OPEN, text, f"viaduct watch {pair.attempt[:8]}", notice=True)


def _released(site: SiteView, pair: Pair, name: str) -> Finding:
    here, there = pair.source_host, pair.destination_host
    if pair.destination.sight is Absence.UNREACHABLE:
        text = f"{here} released {name} to {there}, and {there}, which may run it, {_why(site, there)}"
        off = f"{RECOVER} --fenced {there} --may-miss-writes"
        hint = f"{_bring_back(site, there)}; where it is off for good: {off}"
        return _finding(pair, Code.HANDOVER_WAITING, text, hint, host=there)
    text = f"{here} released {name} to {there}, which {_has(pair)}; the handover is not over"
    return _finding(pair, Code.HANDOVER_WAITING, text, RECOVER, host=there)


def _arriving(pair: Pair, name: str) -> Finding:
    here, there = pair.destination_host, pair.source_host
    if pair.source.sight is Absence.NOTHING:
        text = f"The journal of {there} does not know the attempt that {here} has of {name}: it is not as it was"
        return _finding(pair, Code.HANDOVER_WAITING, text, _LOGS, host=there)
    if pair.destination.sight is State.ACTIVATING:
        text = f"{here} was told to start {name} and has not yet said that it runs"
        return _finding(pair, Code.HANDOVER_WAITING, text, RECOVER, host=here)
    text = f"{here} holds a copy of {name} from an attempt that ended on {there} ({pair.source.sight})"
    return _finding(pair, Code.ABANDONED_IMAGE, text, RECOVER, host=here)


def _has(pair: Pair) -> str:
    words: dict[object, Callable[[], str]] = {
        State.READY: lambda: "holds it whole" if pair.destination.process is Process.ALIVE else "has lost its copy",
        State.PREPARED: lambda: "may hold it whole",
        State.ACTIVATING: lambda: "is starting it",
        State.ACTIVE: lambda: "runs it",
        State.LOST: lambda: "has lost its copy",
        Absence.UNREACHABLE: lambda: "does not tell what it has",
    }
    return words.get(pair.destination.sight, lambda: f"says {pair.destination.sight}")()


def _why(site: SiteView, host: str) -> str:
    if host not in site.hosts:
        return "is not configured here"
    if site.answers(host):
        return "cannot read its journal"
    return "is of a version that cannot tell" if site.hosts[host].is_up else "does not answer"


def _bring_back(site: SiteView, host: str) -> str:
    if host not in site.hosts:
        return f"Add [host.{host}] to viaduct.toml"
    if site.answers(host):
        return f"Repair the disk under state_dir on {host}"
    if site.hosts[host].is_up:
        return f"Ask {host} itself, or update it: docs/upgrades.md"
    return f"Start the agents of {host}"


def _finding(pair: Pair, code: Code, text: str, hint: str, *, host: str = "", notice: bool = False) -> Finding:
    return Finding(
        code=code,
        message=text,
        hint=hint,
        severity="notice" if notice else "problem",
        host=host or (pair.source_host if pair.leaving else pair.destination_host),
        machine=pair.machine,
        attempt=pair.attempt,
    )
