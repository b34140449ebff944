"""Processes as /proc shows them."""

import os
import select
from pathlib import Path


def naming(folder: Path, but: set[int]) -> dict[int, str]:
    """Return living processes, other than this one and some, whose command names a folder, or which work below it."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) in but | {os.getpid()}:
            continue
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if f"{folder}/" in words or (words and _works_below(entry, folder)):  # one that has ended has no words
            found[int(entry.name)] = words
    return found


def _works_below(entry: Path, folder: Path) -> bool:
    try:
        return str((entry / "cwd").readlink()).startswith(f"{folder}/")  # of a folder that was removed, too
    except OSError:
        return False


def mapping_ram(pid: int, name: str) -> bool:
    """Say whether a process maps the RAM of a machine, or, without a name, of any."""
    try:
        return f"viaduct-ram-{name}" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def own_memory(pid: int) -> int:
    """Return a process's anonymous memory in bytes: what it has beside files and shared memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def ended(pid: int, seconds: float) -> bool:
    """Wait until a process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def ram_file(pid: int, name: str) -> Path:
    """Return the memory file of a machine's RAM, as its process holds it."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if str(link.readlink()).startswith((f"/memfd:viaduct-ram-{name}", f"/viaduct-ram-{name}")):
            return link
    raise AssertionError(f"Process {pid} holds no RAM of {name}")
