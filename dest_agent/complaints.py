"""What this agent waits for, or refuses to do, with a machine: said to whoever looks, and to the log once."""

from typing import Final

from vm_migration.telemetry import logs

WAITING: Final = "handover-waiting"
_log: Final = logs.get(__name__)


class Complaints:
    """One text a machine, led by a stable code; the newest stands."""

    def __init__(self) -> None:
        self._texts: Final[dict[str, str]] = {}
        self._waiting: Final[set[str]] = set()

    def of(self, machine: str) -> str:
        """Return what is complained of; empty when nothing."""
        return self._texts.get(machine, "")

    def wait(self, machine: str, code: str, text: str) -> None:
        """Say what a machine waits for."""
        self._waiting.add(machine)
        if self._changed(machine, code, text):
            _log.warning("machine waits", machine=machine, code=code, reason=text)

    def page(self, machine: str, code: str, text: str) -> None:
        """Say what only a person can resolve."""
        self._waiting.discard(machine)
        if self._changed(machine, code, text):
            _log.error("a person must look at this machine", machine=machine, code=code, reason=text)

    def go_on(self, machine: str) -> None:
        """Have heard of an arrival again; what a person must look at stands."""
        if self.of(machine).startswith(f"{WAITING}: "):
            self.settle(machine)

    def rest(self, machine: str) -> None:
        """Have nothing to wait for any more; what a person must look at stands."""
        if machine in self._waiting:
            self.settle(machine)

    def settle(self, machine: str) -> None:
        """Have nothing to complain of any more."""
        self._texts.pop(machine, None)
        self._waiting.discard(machine)

    def _changed(self, machine: str, code: str, text: str) -> bool:
        whole = f"{code}: {text}"
        before, self._texts[machine] = self._texts.get(machine), whole
        return before != whole
