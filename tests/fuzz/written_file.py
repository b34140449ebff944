"""Bytes as a file, for parsers that read one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written(data: bytes) -> Iterator[Path]:
    """Yield the path of a file in memory that holds the bytes, and that only its owner may read."""
    descriptor = os.memfd_create("fuzzed")
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, data)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
