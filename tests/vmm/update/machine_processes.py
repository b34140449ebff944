"""A machine's processes as an update finds them: one that has the machine, one that waits to take it over."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from vfio_host.interface.channel import Channel, connect
from vm_migration.machine.run_directory import MachineDirectory
from vmm.assembly.specification import MachineSpecification, parse_specification
from vmm.process import control, update_requests
from vmm.process.control import AnyReply, Description, Done, Paused

MIB = 1 << 20
DEADLINE = 20.0


def specification(*, viommu: bool = False, **device: object) -> MachineSpecification:
    document: dict[str, object] = {
        "name": "updated",
        "memory": {"size": 64 * MIB},
        "guest": {"cpu_dirty_rate": 10 * MIB, "working_set": 16 * MIB},
        "device": [{"name": "qat0", "model": "qat", "address": "00:04.0", "dma_rate": 8 * MIB, **device}],
    }
    if viommu:
        document["viommu"] = {"model": "intel"}
    return parse_specification(json.dumps(document).encode())


class Controller:
    """An attached connection to a machine process."""

    def __init__(self, path: Path, epoch: int = 1, number: int = 1) -> None:
        self.channel: Channel = connect(path, DEADLINE)
        assert isinstance(self.ask(control.Attach(epoch=epoch, controller=number)), Description)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def ask(self, request: control.AnyRequest) -> AnyReply:
        self.channel.send(control.encode(request))
        return control.reply_decoder.decode(self.channel.receive()[0])

    def describe(self) -> Description:
        found = self.ask(control.Describe())
        assert isinstance(found, Description)
        return found

    def works(self, jobs: int) -> Description:
        """Wait until the guest has done so many more jobs; its own work is the event that is waited for."""
        target = self.describe().guest.jobs_done + jobs
        while (found := self.describe()).guest.jobs_done < target:
            assert found.guest.errors == 0
        return found


@dataclass
class NewProcess:
    """A process that waits to take over."""

    process: subprocess.Popen[str]
    socket: Path
    folder: Path

    def says(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert self.process.stderr is not None
        return str(json.loads(line)["event"]) if line else self.process.stderr.read()

    def controller(self, epoch: int = 1, number: int = 1) -> Controller:
        return Controller(self.folder / control.NEXT_CONTROL_SOCKET, epoch, number)


PROGRAM: Final = (sys.executable, "-m", "vmm.process.main")


def started(directory: MachineDirectory, *, option: str = "--adopt", program: Sequence[str] = PROGRAM) -> NewProcess:
    """Start a process that waits to take the machine of a folder over."""
    path = directory.path / "update.sock"
    command = [*program, "--directory", str(directory.path), "--machine", str(directory.machine), option, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    made = NewProcess(process, path, directory.path)
    assert made.says() == "waiting"
    return made


@contextmanager
def waiting(
    directory: MachineDirectory, *, option: str = "--adopt", program: Sequence[str] = PROGRAM
) -> Iterator[NewProcess]:
    """The same; it ends with this at the latest."""
    made = started(directory, option=option, program=program)
    with made.process:
        try:
            yield made
        finally:
            made.process.kill()


def handed_over(old: Controller, new: NewProcess) -> Paused:
    """Offer the machine and hand it over, while its devices work."""
    assert old.ask(update_requests.OfferUpdate(path=str(new.socket))) == Done()
    assert new.says() == "prepared"
    old.works(5)
    reply = old.ask(update_requests.HandOver())
    assert isinstance(reply, Paused), reply
    assert new.says() == "ready"
    return reply
