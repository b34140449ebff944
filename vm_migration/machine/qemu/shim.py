"""`viaduct-qemu-shim`: stands beside one QEMU, is its only QMP client, and answers what a machine process is asked.

::

    started by the launch --> QEMU started, stopped, or adopted --> fence durable --> cont --> "ready" --> "keep"

It outlives the agents as QEMU does, and ends when QEMU has ended. Up to "keep" both end where whoever started them is
gone, but for a QEMU that was adopted. One that fails later leaves QEMU as it is.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from vm_migration.machine.errors import LaunchFailed, MachineError, MachineGone
from vm_migration.machine.qemu.command_line import Order
from vm_migration.machine.qemu.commands import QemuCommands
from vm_migration.machine.qemu.control_socket import ControlSocket
from vm_migration.machine.qemu.descriptor_wait import readable
from vm_migration.machine.qemu.fence_file import FenceFile, Kept
from vm_migration.machine.qemu.monitor import Monitor
from vm_migration.machine.qemu.portrait import Portrait
from vm_migration.machine.qemu.process_file import started_qemu
from vm_migration.machine.qemu.spawning import QMP_SOCKET, QemuProcess, adopted, log_tail, require_fit, start
from vm_migration.machine.qemu.stream_tls import StreamTls, remove_left
from vm_migration.machine.qemu.streams import Streams
from vm_migration.machine.run_directory import Instance
from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.specification import parse_specification
from vmm.process.control import CONTROL_SOCKET, HOLD, SPECIFICATION_FILE
from vmm.process.identity import Identity, boot_id

_WORD_BYTES: Final = 64
_START_SECONDS: Final = 25.0
_START_SECONDS_PER_GIB: Final = 30.0
"""For QEMU's first answer; a destination touches all of its RAM before it."""
ASK_AGAIN: Final = 0.1
"""Seconds after which a QEMU is asked again that lives, and at whose socket nobody was to be had."""


def main() -> None:
    """Stand beside one machine's QEMU until it has ended."""
    gc.freeze()  # what was imported stays: the collector need not look at it again
    arguments = _parser().parse_args()
    try:
        again = None if arguments.again is None else msgspec.json.decode(arguments.again, type=Instance)
        asyncio.run(_run(_order(arguments), again, hold=arguments.hold))
    except (InvalidDocument, MachineError, OSError, ValueError) as error:
        sys.stderr.write(f"Machine {arguments.machine} ended: {error}\nLook at {arguments.directory}\n")
        sys.exit(1)
    except asyncio.CancelledError:
        sys.stderr.write(f"Machine {arguments.machine} ended: it was told to before it was ready\n")
        sys.exit(1)


def _order(arguments: argparse.Namespace) -> Order:
    folder: Path = arguments.directory
    specification = parse_specification((folder / SPECIFICATION_FILE).read_bytes())
    if specification.qemu is None:
        raise LaunchFailed("Specification is not one of a QEMU")
    qemu = specification.qemu
    starts = qemu.adopt is None or arguments.incoming or started_qemu(folder) is not None
    adopts = None if starts else Path(str(qemu.adopt))
    return Order(arguments.program, folder, arguments.machine, specification, qemu, arguments.incoming, adopts)


async def _run(order: Order, again: Instance | None, *, hold: bool) -> None:
    loop, starting = asyncio.get_running_loop(), asyncio.current_task()
    if starting is not None:  # a task, under asyncio.run
        loop.add_signal_handler(signal.SIGTERM, starting.cancel)  # until it serves: what it has started ends with it
    remove_left(order.folder)
    file = FenceFile(order.folder)
    kept = _kept_by_another(file) if again is not None else Kept.waiting() if order.incoming else Kept()
    async with _qemu(order, again, kept) as (process, monitor):
        commands = await _commands(order, process, monitor, kept, "" if again is None else again.token)
        if again is None:
            file.write(kept)
            if not order.incoming and order.adopts is None:
                await commands.boot()
        else:
            await commands.take_up()
        await _serve(commands, order, process, hold=hold)


def _kept_by_another(file: FenceFile) -> Kept:
    kept = file.read()
    if kept is None:
        raise LaunchFailed("Nothing says what this machine was released from: nobody can speak for it")
    return kept


@contextlib.asynccontextmanager
async def _qemu(order: Order, again: Instance | None, kept: Kept) -> AsyncIterator[tuple[QemuProcess, Monitor]]:
    """Have a QEMU that answers; one that was started for it ends where the context fails."""
    if again is not None:
        process = QemuProcess(again.vmm, order.adopts or order.folder / QMP_SOCKET)
        monitor = Monitor(process.qmp, pause=kept.pause, seen_before=True)
    elif order.adopts is not None:
        monitor = Monitor(order.adopts)
        await monitor.require_connection()
        process = adopted(monitor.session.peer, order.adopts)
    else:
        process = start(order)
        monitor = Monitor(process.qmp)
    try:
        await _first_answer(order, process, monitor)
        yield process, monitor
    finally:
        await monitor.close()
        process.abandon()


async def _first_answer(order: Order, process: QemuProcess, monitor: Monitor) -> None:
    patience = _START_SECONDS + order.specification.memory.size / (1 << 30) * _START_SECONDS_PER_GIB
    ending = asyncio.create_task(process.end(), name="end of QEMU")
    try:
        async with asyncio.timeout(patience):
            while not await _answers(order, monitor, ending):
                await asyncio.wait((ending,), timeout=ASK_AGAIN)  # a socket does not tell when somebody listens there
    except TimeoutError as error:
        raise LaunchFailed(f"QEMU did not answer in {patience:.0f} s{log_tail(order.folder)}") from error
    finally:
        ending.cancel()


async def _answers(order: Order, monitor: Monitor, ending: "asyncio.Task[None]") -> bool:
    asking = asyncio.create_task(monitor.require_connection(), name="first answer of QEMU")
    try:
        await asyncio.wait((asking, ending), return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            raise LaunchFailed(f"QEMU ended before it answered{log_tail(order.folder)}")
        asking.result()
    except MachineGone:
        return False
    finally:
        asking.cancel()
    return True


async def _commands(order: Order, process: QemuProcess, monitor: Monitor, kept: Kept, token: str) -> QemuCommands:
    """Return what serves the machine; `token` names the process that spoke for it before, empty where none did."""
    takes_over = order.adopts is not None and not token
    same_uuid = await require_fit(monitor, order.specification, order.machine, adopts=takes_over)
    identity = Identity(str(order.machine), boot_id(), process.id.pid, token or secrets.token_hex(8))
    portrait = Portrait(identity, order.specification, order.qemu)
    folder, tls = None if order.adopts is not None else order.folder, StreamTls(monitor.session, order.folder)
    streams = Streams(monitor, folder, tls, same_uuid=same_uuid)
    return QemuCommands(monitor, portrait, streams, FenceFile(order.folder), kept)


async def _serve(commands: QemuCommands, order: Order, process: QemuProcess, *, hold: bool) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = ControlSocket(commands, order.folder / CONTROL_SOCKET, _tell)
    tasks = [
        ended := asyncio.create_task(process.end(), name="end of QEMU"),
        asyncio.create_task(stopping.wait(), name="told to stop"),
        asyncio.create_task(server.serve(), name="control socket"),
        asyncio.create_task(commands.guard(_tell), name="guard of the released"),
    ]
    _say("ready", pid=process.id.pid, instance=commands.instance)
    try:
        if hold and not await _kept(ended):
            raise LaunchFailed("Whoever started this machine was gone before it was known to anybody else")
        process.known = True
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # raises what failed, if anything did: it is said, and another shim comes
        if stopping.is_set() and order.adopts is None:
            await end_on_request(commands, process, _tell)
        await commands.idle()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.close()


async def end_on_request(commands: QemuCommands, process: QemuProcess, tell: Callable[[str], None]) -> None:
    """End a QEMU whose machine is to end; at once, and by its id, one that hears nothing any more."""
    try:
        await commands.quit()
    except MachineGone as error:
        tell(f"QEMU is killed: {error}")
        process.kill()


async def _kept(ended: "asyncio.Task[None]") -> bool:
    """Wait for the word that says that the machine is known by now; false where the pipe ends without one."""
    word = asyncio.create_task(readable(sys.stdin.fileno()), name="word")
    await asyncio.wait((word, ended), return_when=asyncio.FIRST_COMPLETED)
    word.cancel()
    return ended.done() or bool(os.read(sys.stdin.fileno(), _WORD_BYTES))


def _say(event: str, **facts: int | str) -> None:
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="viaduct-qemu-shim", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="the machine's folder in the run directory")
    parser.add_argument("--machine", type=UUID, required=True, help="the machine's UUID")
    parser.add_argument("--program", default="", help="the path of QEMU")
    parser.add_argument("--again", metavar="INSTANCE", help="speak for a QEMU that lost who did; its instance.json")
    parser.add_argument("--incoming", action="store_true", help="wait for a stream instead of booting")
    parser.add_argument(
        HOLD, action="store_true", help="end without a word on stdin, which says that it is known by now"
    )
    return parser


if __name__ == "__main__":
    main()
