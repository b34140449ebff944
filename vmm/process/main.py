"""`viaduct-vmm`: the hypervisor and the guest of one machine. Outlives the agents."""

import argparse
import gc
import json
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.machine import Machine
from vmm.assembly.machine_state import InvalidState
from vmm.assembly.specification import MachineSpecification, parse_specification
from vmm.process.commands import Commands
from vmm.process.complaints import Complaints
from vmm.process.control import CONTROL_SOCKET, HOLD, HOST_SOCKET, NEXT_CONTROL_SOCKET, SPECIFICATION_FILE
from vmm.process.host_connection import HostConnection, descriptor_at
from vmm.process.identity import Identity, boot_id
from vmm.process.image import FORMER, KEPT, REFUSED, Image
from vmm.process.interrupts import Interrupts
from vmm.process.predecessor import wait_at
from vmm.process.ram import make_ram
from vmm.process.server import MachineServer
from vmm.update import suspended_machine
from vmm.update.documents import EarlyDocument, InvalidHandover, StateDocument, decode, require_fit
from vmm.update.kept import read
from vmm.update.taking_over import AdoptedMachine, by_name, host_objects
from vmm.vfio.host_port import HostCallFailed, HostGone

_FATAL: Final = (InvalidDocument, InvalidHandover, InvalidState, HostCallFailed, HostGone, OSError, MemoryError)


def main() -> None:
    """Run one machine until it is destroyed."""
    gc.freeze()  # what was imported stays: the collector need not look at it again, now or at the end
    arguments = _parser().parse_args()
    directory: Path = arguments.directory
    if arguments.hold and not _word():
        sys.stderr.write(f"Machine {arguments.machine} ended: whoever started it was gone before its host was ready\n")
        sys.stderr.write("Nothing was opened or booted; start it again\n")
        sys.exit(1)
    try:
        if arguments.kept is not None:
            sys.exit(take_place(directory, arguments.machine, arguments.kept, arguments.former, arguments.refused))
        waits_at = arguments.adopt or arguments.rehearse
        if waits_at is not None:
            rehearses = arguments.adopt is None
            sys.exit(take_over(directory, arguments.machine, waits_at, hold=arguments.hold, rehearses=rehearses))
        sys.exit(
            run(
                directory,
                arguments.machine,
                incoming=arguments.incoming,
                suspended=arguments.suspended,
                hold=arguments.hold,
            )
        )
    except _FATAL as error:
        sys.stderr.write(f"Machine {arguments.machine} ended: {error}\n")
        sys.stderr.write(f"Look at {directory} and the host process's log beside it\n")
        sys.exit(1)


def run(directory: Path, machine_id: str, *, incoming: bool, suspended: Path | None = None, hold: bool = False) -> int:
    """Assemble the machine of a directory, say so on stdout, and serve it; `hold`: until a word comes, or its end.

    One that waits at the path `suspended` wakes when it is run.

    Raises:
        InvalidDocument: The specification is not valid.
        InvalidHandover: No such machine waits there.
        HostGone, HostCallFailed: The host process is missing or lacks a device.
    """
    specification = parse_specification((directory / SPECIFICATION_FILE).read_bytes())
    block = make_ram(specification, incoming=incoming, left=suspended is not None)
    host = HostConnection(directory / HOST_SOCKET)
    machine = Machine(specification, block, host)
    identity = _identity(machine_id)
    interrupts = Interrupts(host, [device.completion for device in machine.devices])
    image = Image(directory, machine_id)
    waits = suspended is not None
    commands = Commands(machine, identity, incoming=incoming or waits, interrupts=interrupts, image=image)
    if suspended is not None:
        commands.wake_from(suspended, suspended_machine.read(suspended, machine_id, block.size))
    elif not incoming:
        machine.boot()
        interrupts.take()
        machine.start()
    return _serve(commands, identity, directory / CONTROL_SOCKET, hold=hold)


def take_over(directory: Path, machine_id: str, path: Path, *, hold: bool = False, rehearses: bool = False) -> int:
    """Take a machine over from the process that comes to a path, and serve it; nothing runs before a Run asks for it.

    `hold`: until a word comes, or the end of whoever started this. Who only `rehearses` loads where the machine stands,
    says whether that can be had, and ends.

    Raises:
        InvalidDocument: The specification is not valid.
        InvalidHandover: The other process keeps its machine.
        HostGone, HostCallFailed: The host process is missing, or is not as the other said.
    """
    specification = parse_specification((directory / SPECIFICATION_FILE).read_bytes())
    before = wait_at(path, lambda: _say("waiting", pid=os.getpid()), sys.stdin.fileno() if hold else None)
    document, numbers = before.receive_early()
    identity = _identity(machine_id)
    adopted, commands = _adopted(directory, identity, specification, document, numbers)
    _say("prepared", pid=identity.pid)
    try:
        state = before.receive_state()
        if rehearses:
            adopted.rehearse(state)
        else:
            commands.take_over(adopted, state)
    except (InvalidHandover, HostCallFailed) as error:
        before.answer(str(error) or type(error).__name__)
        raise
    before.answer()
    before.close()
    if rehearses:
        return 0
    return _serve(commands, identity, directory / NEXT_CONTROL_SOCKET, hold=hold)


def take_place(directory: Path, machine_id: str, number: int, former: Sequence[str], refused: str) -> int:
    """Go on in this process as the image before, which left what it knows in a descriptor; serve the machine.

    Raises:
        InvalidDocument, InvalidHandover, HostCallFailed, HostGone, OSError: It cannot be, and there is no `former`
            command to run again, or the guest has worked since.
    """
    image = Image(directory, machine_id)
    try:
        kept = read(number)
        specification = parse_specification((directory / SPECIFICATION_FILE).read_bytes())
        identity = _identity(machine_id, kept.instance)
        document, state = decode(kept.early, EarlyDocument), decode(kept.state, StateDocument)
        adopted, commands = _adopted(directory, identity, specification, document, kept.numbers)
        commands.take_place(adopted, state, again=bool(refused))
    except _FATAL as error:  # what it took is still open: `error` knows where
        if not former:
            raise
        image.give_back(former, number, str(error) or type(error).__name__)
    asker, answer = commands.go_on(kept, refused)  # from here on RAM is not what the image before left
    for each in (number, *kept.numbers):
        os.set_inheritable(each, False)
    os.close(number)
    server = _server(commands, directory / CONTROL_SOCKET)
    server.go_on(asker, answer)
    return _run(server)


def _adopted(
    directory: Path,
    identity: Identity,
    specification: MachineSpecification,
    document: EarlyDocument,
    numbers: Sequence[int],
) -> tuple[AdoptedMachine, Commands]:
    """Assemble a machine on descriptors that came, and what serves it."""
    require_fit(document, specification, identity.machine, len(numbers))
    named = by_name(document, numbers)
    opened = {name: descriptor_at(named[name]) for name in host_objects(document)}
    host = HostConnection(directory / HOST_SOCKET)
    adopted = AdoptedMachine(specification, document, named, opened, host)
    interrupts = Interrupts(host, [device.completion for device in adopted.machine.devices])
    image = Image(directory, identity.machine)
    return adopted, Commands(adopted.machine, identity, incoming=True, interrupts=interrupts, image=image)


def _identity(machine_id: str, instance: str = "") -> Identity:
    return Identity(machine=machine_id, boot_id=boot_id(), pid=os.getpid(), instance=instance or secrets.token_hex(8))


def _say(event: str, **facts: int | str) -> None:
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


def _serve(commands: Commands, identity: Identity, path: Path, *, hold: bool) -> int:
    server = _server(commands, path)
    _say("ready", pid=identity.pid, instance=identity.instance)
    if hold:
        server.hold(sys.stdin.fileno())
    return _run(server)


def _server(commands: Commands, path: Path) -> MachineServer:
    server = MachineServer(commands, path, Complaints(sys.stderr).write)
    signal.signal(signal.SIGTERM, lambda _signal, _frame: server.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return server


def _run(server: MachineServer) -> int:
    try:
        server.run()
    finally:
        server.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="viaduct-vmm", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="the machine's folder in the run directory")
    parser.add_argument("--machine", required=True, help="the machine's UUID")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--incoming", action="store_true", help="wait for a state instead of booting")
    begin.add_argument("--adopt", type=Path, metavar="SOCKET", help="take over from the process that comes to SOCKET")
    begin.add_argument("--rehearse", type=Path, metavar="SOCKET", help="the same, but take nothing, and end")
    begin.add_argument("--suspended", type=Path, metavar="FILE", help="go on with the suspended machine of a file")
    begin.add_argument(KEPT, type=int, metavar="NUMBER", help="go on as the program before in this very process")
    parser.add_argument(FORMER, type=json.loads, default=(), metavar="JSON", help="its command, to be run again")
    parser.add_argument(REFUSED, default="", metavar="WHY", help="why another program gave the process back")
    parser.add_argument(
        HOLD,
        action="store_true",
        help="open nothing before a line comes on stdin, and end without it; end without a second one too, which says"
        " that the machine is known by now",
    )
    return parser


def _word() -> bytes:
    """Read one line, and not a byte of what follows it."""
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
        return stdin.readline()


if __name__ == "__main__":
    main()
