"""Where a machine's RAM comes from."""

import fcntl
import os
from pathlib import Path
from typing import Final

from vmm.assembly.specification import MachineSpecification
from vmm.memory.ram_block import RamBlock
from vmm.update import suspended_machine

_NAME: Final = "viaduct-ram-"


class MemoryInUse(OSError):
    """The file is RAM of another machine process, or of a suspended machine that waits for one."""


class MemoryNotLeft(OSError):
    """No memory of a machine that was left in files is there."""


def make_ram(specification: MachineSpecification, *, incoming: bool = False, left: bool = False) -> RamBlock:
    """Return a machine's RAM: memory of its own, or the file that the specification names.

    An incoming machine's is made ready as a whole, so it comes in huge pages where that can be. What was `left` in its
    file is there already: none is made.

    A file is RAM of one machine process at a time. Both ends of a migration read one specification, and where they
    reach the same file the destination would write over what its source still runs on. A suspended machine that waits
    in its files has no process: what lies beside its RAM keeps others away.

    Raises:
        MemoryInUse: Another process has the file, or a machine waits in it, and it was not touched.
        MemoryNotLeft: There is no such file, or one of another size.
        OSError: The file cannot be had.
    """
    memory = specification.memory
    if memory.backing != "file" or memory.path is None:
        if left:
            raise MemoryNotLeft("RAM is in no file in which it could have been left")
        return RamBlock.create(_NAME + specification.name, memory.size, whole=incoming)
    if not left:
        _require_nobody_waits(Path(memory.path))  # before a file is made where RAM of one that waits was lost
    descriptor = os.open(memory.path, os.O_RDWR | os.O_CLOEXEC | (0 if left else os.O_CREAT), 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not left:
            _require_nobody_waits(Path(memory.path))  # whoever had the lock may have left its machine there
        elif (size := os.fstat(descriptor).st_size) != memory.size:
            raise MemoryNotLeft(f"Memory file {memory.path} has {size} bytes, not the {memory.size} that were left")
        os.ftruncate(descriptor, memory.size)
        return RamBlock.adopt(descriptor)
    except BlockingIOError as error:
        os.close(descriptor)
        raise MemoryInUse(f"Memory file {memory.path} is another machine's RAM at this moment") from error
    except OSError:
        os.close(descriptor)
        raise


def _require_nobody_waits(path: Path) -> None:
    waits = suspended_machine.beside(path)
    if os.path.lexists(waits):
        raise MemoryInUse(
            f"Memory file {path} is RAM of a suspended machine that waits for a new process, says {waits};"
            " give this machine another memory.path, or take that file away where nobody wants what waits"
        )
