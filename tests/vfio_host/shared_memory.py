"""RAM for tests of devices."""

import os

from vfio_host.memory_file import MemoryFile


def shared_memory(size: int) -> MemoryFile:
    descriptor = os.memfd_create("test-ram")
    try:
        os.ftruncate(descriptor, size)
        return MemoryFile(descriptor, size)
    finally:
        os.close(descriptor)
