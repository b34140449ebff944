"""What is seen of an update from outside its agent: both processes, what they say, and what an update leaves."""

import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Sequence
from pathlib import Path

from tests.faults.expected import Ending
from tests.faults.sampling import Sampler
from tests.faults.trial import SOURCE, Trial
from tests.system.processes import ended, naming
from vm_migration.handover.record import Record
from vm_migration.handover.states import OWNING, State
from vm_migration.handover.succession import went_over

_GONE_SECONDS = 10.0
_PIPE = "pipe:"
_STARTED_AS = {"--adopt", "--rehearse", "--suspended"}
_HOST_PROGRAM = "vfio_host.process.main"


def newcomer(trial: Trial) -> int | None:
    """Return the process that is to have the machine, or rehearses for it."""
    found = naming(trial.site.folder / SOURCE / "run", set())
    return next(
        (pid for pid, words in found.items() if trial.machine in words and _STARTED_AS & set(words.split())), None
    )


def newcomers_host(trial: Trial) -> int | None:
    """Return the host process that was started with the one that is to have the machine; mode reboot starts both."""
    before = None if trial.before is None else trial.before.host.pid
    found = naming(trial.site.folder / SOURCE / "run", set())
    mine = (pid for pid, words in found.items() if trial.machine in words and _HOST_PROGRAM in words)
    return next((pid for pid in mine if pid != before), None)


def was_offered(pid: int, name: str) -> bool:
    """Tell whether a process holds the RAM of a machine, which comes to it with the offer."""
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return any(f"viaduct-ram-{name}" in link for link in links)


def unheard(pid: int) -> int:
    """Return how many bytes a process has written to its stdout, a pipe, that nobody has read; 0 where it is gone."""
    with contextlib.suppress(OSError):
        number = os.open(f"/proc/{pid}/fd/1", os.O_RDONLY | os.O_NONBLOCK)
        try:
            (found,) = struct.unpack("i", fcntl.ioctl(number, termios.FIONREAD, bytes(4)))
        finally:
            os.close(number)
        return int(found)
    return 0


def becomes_another(pid: int) -> bool:
    """Tell whether a machine's process runs a program that took the place of another."""
    try:
        return b"\0--kept\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def ending_of_update(trial: Trial, sampler: Sampler) -> Ending:
    """Return how the machine stands by its host's journal and by its processes."""
    record, directory = trial.record(SOURCE), trial.site.directory(SOURCE, trial.machine)
    if record is None:
        return Ending.BROKEN
    instance, look = directory.instance(), sampler.last(SOURCE)
    runs = instance is not None and look is not None and look.instance == instance.token and look.run_state == "running"
    return stands(record, None if instance is None else instance.name, alive=directory.alive(), runs=runs)


def stands(record: Record, named: str | None, *, alive: bool, runs: bool) -> Ending:
    """Return how a machine stands by its journal and by the process that its directory names, if it names one.

    The journal names a new process before the directory does: what the directory still names may have ended by then.
    """
    if record.state is State.LOST:
        return Ending.LOST
    switches = bool(named and record.instance) and named != record.instance
    if record.state not in OWNING or switches or (alive and not runs):
        return Ending.BROKEN
    if not alive:
        return Ending.DIED
    return Ending.COMPLETED if went_over(record) else Ending.STAYED


def pipes_of(pid: int) -> int:
    """Return how many pipes a process has open; of each process that an agent starts it has two."""
    links: list[str] = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed in between
            links.append(str(link.readlink()))
    return sum(link.startswith(_PIPE) for link in links)


def left_of_update(trial: Trial, pipes: int) -> Sequence[str]:
    """Return what an update has left beside a machine that runs, in words: processes, and pipes of its agent.

    `pipes` is how many the agent had before; one that was started since had none.
    """
    instance = trial.site.instance(SOURCE, trial.machine)
    found = naming(trial.site.folder / SOURCE / "run", set())
    others = [pid for pid, words in found.items() if trial.machine in words]
    others = [pid for pid in others if pid not in (instance.vmm.pid, instance.host.pid)]
    left = [f"process {pid}: {found[pid]}" for pid in others if not ended(pid, _GONE_SECONDS)]
    more = pipes_of(trial.site.source(SOURCE).pid) - pipes
    return [*left, *([f"{more} pipes of the source agent"] if more > 0 else [])]
