"""Keeping freed megabytes for the next message.

A bulk frame, and a read or write of device state, is a buffer of a megabyte, made and freed a thousand times a second.
By default glibc gives such memory back to the kernel each time, and each new page of it is a fault, which costs most on
nested hosts: with buffers kept, raw gRPC streams moved 1.7 GB/s where they moved 1.35 (benchmarks, 2026-11-21), and a
host process took half the time to read device state, and a third to write it. What is kept is bounded by TRIM_ABOVE for
each of the few arenas in use.
"""

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
TRIM_ABOVE: Final = 32 << 20
_TOP_PAD: Final = 8 << 20
_MMAP_ABOVE: Final = 16 << 20


def keep_large_buffers() -> bool:
    """Tell the C library's allocator; another library than glibc is left as it is, and False returned."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_M_MMAP_THRESHOLD, _MMAP_ABOVE), (_M_TRIM_THRESHOLD, TRIM_ABOVE), (_M_TOP_PAD, _TOP_PAD))
    answers = [mallopt(parameter, value) for parameter, value in wanted]
    return all(answer == 1 for answer in answers)
