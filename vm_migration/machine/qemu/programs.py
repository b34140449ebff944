"""Which program a QEMU machine is on this host.

A specification names it by its name, or by its path; a host lists the paths of those that may be machines there
(`[offer] qemu`), since whoever creates a machine would have any program started with any arguments.
"""

from collections.abc import Collection


def program_for(wanted: str, offered: Collection[str]) -> str | None:
    """Return the path of the program that is meant; None where none is offered, or several go by that name."""
    matching = [path for path in offered if wanted in (path, path.rpartition("/")[2])]
    return matching[0] if len(matching) == 1 else None
