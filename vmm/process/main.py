"""`viaduct-vmm`: the hypervisor and the guest of one machine. Outlives the agents."""

import argparse
import gc
import json
import os
import secrets
import signal
import sys
from pathlib import Path

from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.machine import Machine
from vmm.assembly.specification import parse_specification
from vmm.process.commands import Commands
from vmm.process.complaints import Complaints
from vmm.process.control import CONTROL_SOCKET, HOLD, HOST_SOCKET, NEXT_CONTROL_SOCKET, SPECIFICATION_FILE
from vmm.process.description import Identity, boot_id
from vmm.process.host_connection import HostConnection, descriptor_at
from vmm.process.interrupts import Interrupts
from vmm.process.predecessor import wait_at
from vmm.process.ram import make_ram
from vmm.process.server import MachineServer
from vmm.update.documents import InvalidHandover, require_fit
from vmm.update.taking_over import AdoptedMachine, by_name, host_objects
from vmm.vfio.host_port import HostCallFailed, HostGone


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
        if arguments.adopt is not None:
            sys.exit(take_over(directory, arguments.machine, arguments.adopt, hold=arguments.hold))
        sys.exit(run(directory, arguments.machine, incoming=arguments.incoming, hold=arguments.hold))
    except (InvalidDocument, InvalidHandover, HostCallFailed, HostGone, OSError, MemoryError) as error:
        sys.stderr.write(f"Machine {arguments.machine} ended: {error}\n")
        sys.stderr.write(f"Look at {directory} and the host process's log beside it\n")
        sys.exit(1)


def run(directory: Path, machine_id: str, *, incoming: bool, hold: bool = False) -> int:
    """Assemble the machine of a directory, say so on stdout, and serve it; `hold`: until a word comes, or its end.

    Raises:
        InvalidDocument: The specification is not valid.
        HostGone, HostCallFailed: The host process is missing or lacks a device.
    """
    specification = parse_specification((directory / SPECIFICATION_FILE).read_bytes())
    block = make_ram(specification, incoming=incoming)
    host = HostConnection(directory / HOST_SOCKET)
    machine = Machine(specification, block, host)
    identity = _identity(machine_id)
    interrupts = Interrupts(host, [device.completion for device in machine.devices])
    commands = Commands(machine, identity, incoming=incoming, interrupts=interrupts)
    if not incoming:
        machine.boot()
        interrupts.take()
        machine.start()
    return _serve(commands, identity, directory / CONTROL_SOCKET, hold=hold)


def take_over(directory: Path, machine_id: str, path: Path, *, hold: bool = False) -> int:
    """Take a machine over from the process that comes to a path, and serve it; nothing runs before a Run asks for it.

    Raises:
        InvalidDocument: The specification is not valid.
        InvalidHandover: The other process keeps its machine.
        HostGone, HostCallFailed: The host process is missing, or is not as the other said.
    """
    specification = parse_specification((directory / SPECIFICATION_FILE).read_bytes())
    before = wait_at(path, lambda: _say("waiting", pid=os.getpid()))
    document, numbers = before.receive_early()
    require_fit(document, specification, machine_id, len(numbers))
    named = by_name(document, numbers)
    opened = {name: descriptor_at(named[name]) for name in host_objects(document)}
    host = HostConnection(directory / HOST_SOCKET)
    adopted = AdoptedMachine(specification, document, named, opened, host)
    interrupts = Interrupts(host, [device.completion for device in adopted.machine.devices])
    identity = _identity(machine_id)
    commands = Commands(adopted.machine, identity, incoming=True, interrupts=interrupts)
    _say("prepared", pid=identity.pid)
    try:
        commands.take_over(adopted, before.receive_state())
    except (InvalidHandover, HostCallFailed) as error:
        before.answer(str(error) or type(error).__name__)
        raise
    before.answer()
    before.close()
    return _serve(commands, identity, directory / NEXT_CONTROL_SOCKET, hold=hold)


def _identity(machine_id: str) -> Identity:
    return Identity(machine=machine_id, boot_id=boot_id(), pid=os.getpid(), instance=secrets.token_hex(8))


def _say(event: str, **facts: int | str) -> None:
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


def _serve(commands: Commands, identity: Identity, path: Path, *, hold: bool) -> int:
    server = MachineServer(commands, path, Complaints(sys.stderr).write)
    signal.signal(signal.SIGTERM, lambda _signal, _frame: server.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _say("ready", pid=identity.pid, instance=identity.instance)
    if hold:
        server.hold(sys.stdin.fileno())
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
