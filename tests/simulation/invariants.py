"""What must hold at every change, whatever happens: the promise of docs/protocol/handover.md, looked at from above.

`Invariants` sees each machine process run, stop and end, each record become durable and each message leave. A broken
rule ends the schedule with `Violation`.
"""

from collections.abc import Callable
from typing import Final, Protocol

from tests.simulation.machines import MachineProcess, Watch
from vm_migration.handover.record import Record
from vm_migration.handover.states import OWNING, State

_MAY_RUN: Final = OWNING | {State.OUTGOING, State.ACTIVATING}
"""Where a host's journal stands, durably, when a guest begins to run there."""
_SECRET_IS_OUT: Final = frozenset({State.RELEASED, State.RETIRED, State.RECLAIMED, State.LOST, State.TAKEN})
_NO_END: Final = frozenset({State.OUTGOING, State.RELEASED})
"""Of a source: no whole image of that attempt is discarded while it stands there."""
_HANDOFF: Final = "/vm_migration.api.v1.Destination/Handoff"
_LOSS_TOLD: Final = frozenset({State.LOST, State.DESTROYED, State.TAKEN})


class Say(Protocol):
    """Takes a line for the trace."""

    def __call__(self, who: str, what: str, **facts: object) -> None: ...


def _unheard(who: str, what: str, **facts: object) -> None:
    del who, what, facts


class Violation(BaseException):
    """A rule was broken; no agent can catch it."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule: Final = rule


class Invariants(Watch):
    """Looks at one site."""

    def __init__(self, fail: Callable[[Violation], None]) -> None:
        self._fail: Final = fail
        self.violation: Violation | None = None
        self.processes: Final[list[MachineProcess]] = []
        self.records: Callable[[], dict[str, Record]] = dict
        self.said: Say = _unheard
        self.rolled_back: Final[set[str]] = set()
        """Hosts whose journal was rolled back: what it says is not what it once promised."""
        self.killed: Final[set[str]] = set()
        """Instances that a fault ended."""
        self.runs_seen = 0
        self.running: Final[list[MachineProcess]] = []

    def broken(self, rule: str, text: str) -> None:
        """Take note of the first rule that is broken, which ends the schedule."""
        self.said("RULE BROKEN", rule, why=text)
        if self.violation is None:
            self.violation = Violation(rule, text)
            self._fail(self.violation)

    # machine processes

    def launched(self, machine: MachineProcess) -> None:
        self.processes.append(machine)

    def runs(self, machine: MachineProcess) -> None:
        """The guest begins to execute at a host."""
        self.runs_seen += 1
        if machine not in self.running:
            self.running.append(machine)
        host, record = machine.host.name, self.records().get(machine.host.name)
        self.said(host, "guest runs", instance=machine.instance.token)
        others = [each.host.name for each in self.running if each is not machine]
        if others:
            self.broken("two-running", f"{host} runs the machine, and so does {', '.join(others)}")
        lacks = machine.guest.lacks()
        # Where a journal was put back to what its peer had seen last, nothing shows that the guest has run since.
        taken = bool(self.rolled_back) or (record is not None and record.state is State.TAKEN)
        if lacks and not taken:
            self.broken("lost-write", f"{host} runs the machine on memory that misses writes: {lacks}")
        if taken:
            machine.guest.begin_anew()
        if record is not None and record.state not in _MAY_RUN and host not in self.rolled_back:
            self.broken("run-before-record", f"{host} runs the machine, and its durable journal says {record.state}")

    def stands(self, machine: MachineProcess, why: str) -> None:
        if machine in self.running:
            self.running.remove(machine)
        self.said(machine.host.name, f"guest stands: {why}", instance=machine.instance.token)

    def freed(self, machine: MachineProcess) -> None:
        """An agent ends a process; one that holds the whole machine only where it is not the last to be owed."""
        self.said(machine.host.name, "image freed", instance=machine.instance.token)
        records = self.records()
        if not machine.whole or self.rolled_back:
            return
        own = records.get(machine.host.name)
        if own is not None and own.state in _LOSS_TOLD:
            return
        for host, record in records.items():
            if host != machine.host.name and (record.state in OWNING or record.state in _LOSS_TOLD):
                return
            # An attempt that is open at its source, or at another destination since, is one that another copy is in.
            if host != machine.host.name and record.state in {State.OUTGOING, State.STOPPED, State.RELEASED}:
                if any(each.host.name == host and each.whole for each in self.processes):
                    return
                if any(each.host.name == host and each.instance.name in self.killed for each in self.processes):
                    return
        self.broken("freed-last-copy", f"{machine.host.name} frees a whole copy that nobody else owns")

    # journals and messages

    def journalled(self, host: str, before: Record | None, record: Record) -> None:
        """A record has become durable."""
        if before is None or host in self.rolled_back:
            return
        if record.sequence < before.sequence:
            self.broken("journal-went-back", f"{host} was at {before.sequence}, and is at {record.sequence}")
        if record.highest_epoch < before.highest_epoch:
            self.broken("epoch-went-back", f"{host} was at {before.highest_epoch}, and is at {record.highest_epoch}")

        self._founded(host, before, record)

    def _founded(self, host: str, before: Record, record: Record) -> None:
        """What a source writes on its destination's word rests on what is durable there."""
        if record.state is before.state or self.rolled_back:
            return
        peer = self.records().get(record.peer)
        others = [each for name, each in self.records().items() if name != host]
        match record.state:
            case State.RELEASED:
                ready = peer is not None and peer.state is State.READY
                founded = ready and peer is not None and (peer.attempt, peer.pause) == (record.attempt, record.pause)
            case State.RECLAIMED:
                founded = peer is not None and peer.state is State.LOST
            case State.RETIRED:
                above = max(record.owned_epoch + 1, record.epoch)
                founded = any(each.owned_epoch >= above for each in others)
            case State.DISCARDED if before.state is State.READY and before.attempt == record.attempt:
                founded = peer is None or peer.attempt != record.attempt or peer.state not in _NO_END
            case _:
                return
        if not founded:
            there = ", ".join(f"{each.state} at epoch {each.owned_epoch}" for each in others)
            self.broken("unfounded", f"{host} writes {record.state}, and elsewhere only this is durable: {there}")

    def passed(self, source: str, target: str, what: str) -> None:
        """A message leaves."""
        record = self.records().get(source)
        if record is None or source in self.rolled_back:
            return
        if what == _HANDOFF and record.state not in _SECRET_IS_OUT:
            owns_it = record.owned_epoch >= record.epoch or record.released_epoch == record.epoch
            if not owns_it:
                self.broken("secret-before-released", f"{source} gives the secret to {target} in {record.state}")
