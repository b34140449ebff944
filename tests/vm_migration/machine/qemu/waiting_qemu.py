"""A QEMU of a test that has taken a whole stream in, as far as its monitor shows it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.vm_migration.machine.qemu.hosts import MACHINE, specification
from tests.vm_migration.machine.qemu.spoken_qmp import Answer, SpokenQmp
from vm_migration.machine.qemu.commands import QemuCommands
from vm_migration.machine.qemu.fence_file import FenceFile, Kept
from vm_migration.machine.qemu.monitor import Monitor
from vm_migration.machine.qemu.portrait import Portrait
from vm_migration.machine.qemu.stream_tls import StreamTls
from vm_migration.machine.qemu.streaming import NEEDED
from vm_migration.machine.qemu.streams import Streams
from vmm.process.identity import Identity

_NOTHING_OF_INTEREST: Final = {
    "qom-list": [],
    "query-block": [],
    "qom-get": "pc-q35-7.2-machine",
    "query-migrate-capabilities": [{"capability": name, "state": False} for name in sorted(NEEDED[False])],
}
_VERSION: Final = {"qemu": {"major": 7, "minor": 2, "micro": 22}}


class WaitingQemu:
    """Obeys `cont` and `stop`; with `breaks_behind_cont` the first `cont` is obeyed, and answered by nobody."""

    def __init__(self, *, breaks_behind_cont: bool = False) -> None:
        self.runs = False
        self.stream = "completed"
        self.spoken: SpokenQmp | None = None
        self.refuses_stop = False
        self._breaks = breaks_behind_cont

    def say(self, command: str, _arguments: Mapping[str, object]) -> Answer:
        if command == "cont":
            self.goes(on=True)
            if self._breaks:
                self._breaks = False
                self._at().hang_up()
                return None
        elif command == "stop" and self.refuses_stop:
            return {"error": {"class": "GenericError", "desc": "not now"}}
        elif command == "stop":
            self.goes(on=False)
        return {"return": self._returned(command)}

    def goes(self, *, on: bool) -> None:
        """Run, or stand still, whoever asked for it."""
        self.runs = on
        self._at().event("RESUME" if on else "STOP")

    def _returned(self, command: str) -> object:
        if command == "query-status":
            return {"status": "running" if self.runs else "paused", "running": self.runs}
        if command == "query-migrate":
            return {"status": self.stream}
        return _VERSION if command == "query-version" else _NOTHING_OF_INTEREST.get(command, {})

    def _at(self) -> SpokenQmp:
        assert self.spoken is not None
        return self.spoken


def commands_of(folder: Path, monitor: Monitor, kept: Kept) -> QemuCommands:
    """Return what a shim serves a QEMU with."""
    wanted = specification()
    assert wanted.qemu is not None
    streams = Streams(monitor, folder, StreamTls(monitor.session, folder), same_uuid=True)
    portrait = Portrait(Identity(str(MACHINE), "boot", 1 << 30, "drawn"), wanted, wanted.qemu)
    return QemuCommands(monitor, portrait, streams, FenceFile(folder), kept)
