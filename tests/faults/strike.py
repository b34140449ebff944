"""The fault itself: who is hit, how, and how it is put right again."""

import contextlib
import os
import signal
from collections.abc import Sequence

from tests.faults.fault_site import BROKER, CONTROL
from tests.faults.pair import EtcdDaemon, Seat
from tests.faults.rows import Deed, Row, Victim
from tests.faults.trial import DESTINATION, SOURCE, Trial
from tests.faults.updated import newcomer, newcomers_host
from tests.system.daemons import Daemon
from tests.system.processes import ended
from vm_migration.machine.run_directory import ProcessId, identify, lives

_CABLES = {
    Victim.SOURCE: SOURCE,
    Victim.DESTINATION: DESTINATION,
    Victim.ORCHESTRATOR: CONTROL,
    Victim.BROKER: BROKER,
}
_DEATH_SECONDS = 10.0


class Strike:
    """One fault of one trial."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._row: Row = trial.row
        self._struck: list[ProcessId] = []
        self._leader: Seat | None = None
        self._members: list[EtcdDaemon] = []

    @property
    def pids(self) -> frozenset[int]:
        """Who was hit."""
        return frozenset(process.pid for process in self._struck)

    def hit(self) -> bool:
        """Strike; False says that there is no such process now."""
        site = self._trial.site
        network = site.network
        if self._row.victim is Victim.LEADER and site.pair is not None:
            self._leader = site.pair.leading()
            if self._leader is None:
                return False
        if self._row.victim in (Victim.ETCD, Victim.ETCD_MAJORITY) and site.pair is not None:
            members = site.pair.members_the_leading_first()
            self._members = members[:1] if self._row.victim is Victim.ETCD else members[: len(members) // 2 + 1]
            if not self._members:
                return False
        if self._row.deed is Deed.CUT:
            if self._row.victim is Victim.BETWEEN:
                network.separate((SOURCE, DESTINATION))
            else:
                network.cut(self._cable())
            return True
        pids = self._pids()
        with contextlib.suppress(ProcessLookupError):
            self._struck = [identify(pid) for pid in pids]
            for pid in pids:
                os.kill(pid, signal.SIGKILL if self._row.deed is Deed.KILL else signal.SIGSTOP)
            if self._row.deed is Deed.KILL:
                for pid in pids:
                    ended(pid, _DEATH_SECONDS)  # it takes its memory down first, and counts as alive meanwhile
                self._await_those_it_takes_along()
        return bool(self._struck)

    def _await_those_it_takes_along(self) -> None:
        """Wait until a machine's process has ended whose host process was killed; one that is frozen cannot."""
        if self._row.victim in (Victim.SOURCE_VFIO_HOST, Victim.DESTINATION_VFIO_HOST):
            machine = self._process_of_host()
            if machine is not None and machine not in self._trial.frozen:
                ended(machine, _DEATH_SECONDS)

    def _process_of_host(self) -> int | None:
        """Return the machine's process that ends with the host process that was struck."""
        if self._row.updates and self._row.victim is Victim.DESTINATION_VFIO_HOST:
            return newcomer(self._trial)
        instance = self._trial.site.directory(self._host(), self._trial.machine).instance()
        return None if instance is None else instance.vmm.pid

    def put_right(self) -> None:
        """Restart, thaw or plug in again what was hit."""
        if self._row.deed is Deed.CUT:
            self._trial.site.network.heal()
        elif self._row.deed is Deed.FREEZE:
            for process in self._struck:
                if lives(process):
                    os.kill(process.pid, signal.SIGCONT)
        else:
            daemons = self.daemons()
            for daemon in daemons:
                daemon.kill()  # it is dead; this reaps it
            self._trial.site.start(daemons)

    def daemons(self) -> Sequence[Daemon]:
        """Return the victim where it is a daemon, or several."""
        site = self._trial.site
        found: dict[Victim, Sequence[Daemon]] = {
            Victim.SOURCE_AGENT: [site.source(SOURCE)],
            Victim.DESTINATION_AGENT: [site.dest(SOURCE if self._row.updates else DESTINATION)],
            Victim.ORCHESTRATOR: [site.orchestrator],
            Victim.LEADER: [] if self._leader is None else [self._leader.daemon],
            Victim.ETCD: self._members,
            Victim.ETCD_MAJORITY: self._members,
            Victim.BROKER: [site.mosquitto],
        }
        return found.get(self._row.victim, [])

    def _cable(self) -> str:
        return _CABLES[self._row.victim] if self._leader is None else self._leader.host

    def _pids(self) -> list[int]:
        victim, trial = self._row.victim, self._trial
        if daemons := self.daemons():
            return [daemon.pid for daemon in daemons if daemon.running]
        if victim is Victim.CLI:
            return [trial.command.pid] if trial.command is not None and trial.command.poll() is None else []
        if self._row.updates and victim in (Victim.DESTINATION_VMM, Victim.DESTINATION_VFIO_HOST):
            new = newcomer(trial) if victim is Victim.DESTINATION_VMM else newcomers_host(trial)
            return [] if new is None else [new]
        directory = trial.site.directory(self._host(), trial.machine)
        instance = trial.before if self._row.updates else directory.instance()
        if instance is None:
            return []
        process = instance.vmm if victim in (Victim.SOURCE_VMM, Victim.DESTINATION_VMM) else instance.host
        return [process.pid] if lives(process) else []

    def _host(self) -> str:
        return SOURCE if self._row.victim in (Victim.SOURCE_VMM, Victim.SOURCE_VFIO_HOST) else DESTINATION
