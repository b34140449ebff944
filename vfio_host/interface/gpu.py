"""The graphics processor's data sheet: an accelerator with a large memory of its own, which its results depend on.

Rings, index page, completion entries and the registers 0x00 to 0x40 are those of interface/qat.py, errors included.
LOCAL_BYTES (read only) tells how much local memory there is. It is zeros after a reset, and nothing but jobs changes
it; disabling the device does not.

A job of ACCUMULATE takes a run of 64-bit words of local memory, at LOCAL_OFFSET, through

    local word = local word x MULTIPLIER + source word, modulo 2^64

and writes the new words to DESTINATION; the completion tells their length and CRC-32. What comes out therefore tells
of every job that the run has been through. All offsets and lengths are multiples of 8. A job that ends in FAULT has
changed local memory as far as its output was written; with another error it has changed nothing.

::

    request  64 bytes  job u64, operation u32, MULTIPLIER u32, source u64, source_length u32, reserved u32,
                       destination u64, destination_capacity u32, reserved u32, cookie u64, LOCAL_OFFSET u64
"""

from enum import IntEnum
from typing import Final

LOCAL_BYTES_OFFSET: Final = 0x48
"""The register LOCAL_BYTES."""
LOCAL_GRANULE: Final = 64 << 10
"""Local memory comes in multiples of this."""
WORD: Final = 8
MAX_LENGTH: Final = 256 << 10
"""Bytes that one job takes at most."""


class Operation(IntEnum):
    """What a job asks for."""

    ACCUMULATE = 1
