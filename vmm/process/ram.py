"""Where a machine's RAM comes from."""

import fcntl
import os
from typing import Final

from vmm.assembly.specification import MachineSpecification
from vmm.memory.ram_block import RamBlock

_NAME: Final = "viaduct-ram-"


class MemoryInUse(OSError):
    """Another machine process has the file as its RAM."""


def make_ram(specification: MachineSpecification, *, incoming: bool = False) -> RamBlock:
    """Return a machine's RAM: memory of its own, or the file that the specification names.

    An incoming machine's is made ready as a whole, so it comes in huge pages where that can be.

    A file is RAM of one machine process at a time. Both ends of a migration read one specification, and where they
    reach the same file the destination would write over what its source still runs on.

    Raises:
        MemoryInUse: Another process has the file, and it was not touched.
        OSError: The file cannot be had.
    """
    memory = specification.memory
    if memory.backing != "file" or memory.path is None:
        return RamBlock.create(_NAME + specification.name, memory.size, whole=incoming)
    descriptor = os.open(memory.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, memory.size)
        return RamBlock.adopt(descriptor)
    except BlockingIOError as error:
        os.close(descriptor)
        raise MemoryInUse(f"Memory file {memory.path} is another machine's RAM at this moment") from error
    except OSError:
        os.close(descriptor)
        raise
