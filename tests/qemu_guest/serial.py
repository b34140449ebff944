"""What the guest printed."""

import re
from pathlib import Path
from typing import Final

_COUNT: Final = re.compile(rb"^count (\d+)\r?\n", re.MULTILINE)
"""A line that has ended: QEMU writes the file byte by byte."""


def counts(serial: Path) -> list[int]:
    """Return what the guest counted so far, in the order in which it came.

    Raises:
        AssertionError: The guest found a page that did not hold what it had written there.
    """
    text = serial.read_bytes() if serial.exists() else b""
    assert b"bad" not in text, "A page of the guest does not hold what it wrote there"
    return [int(found) for found in _COUNT.findall(text)]


def without_gap(*parts: list[int]) -> bool:
    """Tell whether parts, one after another, count from 1 on without a gap or a repeat."""
    whole = [number for part in parts for number in part]
    return whole == list(range(1, len(whole) + 1))
