"""What a folder is on, and whether a file can be written beside a machine's RAM (mode reboot)."""

import os
import re
from pathlib import Path
from typing import Final

_ESCAPED: Final = re.compile(r"\\(\d{3})")
_OF_MEMORY_ONLY: Final = frozenset({"hugetlbfs"})
"""Files there are mapped only: write(2) is EINVAL."""


def kind_of_file_system(folder: Path) -> str:
    """Return the kind of file system that a folder is on, of those that are mounted now.

    Raises:
        OSError: The kernel does not tell what is mounted.
    """
    found, longest = "", -1
    path = folder.resolve()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        mounted = Path(_ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), left.split()[4]))
        if path.is_relative_to(mounted) and len(mounted.parts) >= longest:
            found, longest = right.split()[0], len(mounted.parts)
    return found


def why_nothing_beside(ram: Path) -> str:
    """Return why no file can be written beside RAM's; empty where one can. Nothing is written to find out."""
    folder = ram.parent
    try:
        kind = kind_of_file_system(folder)
    except OSError as error:
        return f"What {folder} is on cannot be found out: {error}"
    if kind in _OF_MEMORY_ONLY:
        return f"{folder} is on {kind}, which has no file but memory; use tmpfs, which can have huge pages too"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"This process may not write to {folder}"
    return ""
