"""Memory for devices to write."""

import os

from vfio_host.memory_file import MemoryFile


def memory(size: int) -> MemoryFile:
    """Return a file of so many bytes, mapped; it takes no memory until it is written."""
    descriptor = os.memfd_create("test-ram")
    try:
        os.ftruncate(descriptor, size)
        return MemoryFile(descriptor, size)
    finally:
        os.close(descriptor)
