"""A suspended machine that waits in files: its RAM in one on a memory file system, all else in another (mode reboot).

No process has it meanwhile, no device is open and no mapping exists: what the host's kernel or firmware does to devices
in between is nothing to the guest, which sets them up anew when it wakes (semantics 9.1, 9.8).
"""

import os
from pathlib import Path
from typing import Final

import msgspec

from vmm.update.documents import FORMAT, InvalidHandover, StateDocument, decode, encode, require_read

_SUFFIX: Final = ".suspended"
_NEW: Final = ".new"
_HEAD_BYTES: Final = 64
"""In which the machine is named: it comes second, and a writer that was killed may have left no more."""


class SuspendedMachine(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Which machine waits, and where it stood; `state` is an encoded StateDocument without a mapping."""

    version: int
    machine: str
    ram_bytes: int
    state: bytes


def beside(ram: Path) -> Path:
    """Return where a machine waits whose RAM is in a file: PATH.suspended, on the same file system."""
    return ram.with_name(ram.name + _SUFFIX)


def write(path: Path, machine: str, ram_bytes: int, state: StateDocument) -> None:
    """Write what is needed beside RAM, for this user alone; it is on disk, whole, when this returns.

    In a folder that others write to (/dev/shm), what they put in the way is not followed, and not taken for its own.

    Raises:
        OSError: It is not: what lay there before is as it was, or gone where its folder does not keep what is new.
    """
    new = path.with_name(path.name + _NEW)
    new.unlink(missing_ok=True)  # of a life that did not finish
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode(SuspendedMachine(FORMAT, machine, ram_bytes, encode(state))))
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    try:
        _sync_folder(path.parent)
    except OSError:  # the machine goes on where it is: nobody may begin from this file later
        path.unlink(missing_ok=True)
        raise


def read(path: Path, machine: str, ram_bytes: int) -> StateDocument:
    """Return where a machine stood that waits at a path.

    Raises:
        InvalidHandover: None waits there, or another one.
    """
    try:
        data = path.read_bytes()
        found = msgspec.msgpack.decode(data, type=SuspendedMachine)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidHandover(f"No suspended machine can be read at {path}: {error}") from error
    require_read(found.version, str(path))
    if encode(found) != data:
        raise InvalidHandover(f"{path} is not in its canonical form")
    if (found.machine, found.ram_bytes) != (machine, ram_bytes):
        said = f"machine {found.machine} with {found.ram_bytes} bytes of RAM"
        raise InvalidHandover(f"At {path} waits {said}, not {machine} with {ram_bytes}")
    return decode(found.state, StateDocument)


def remove(path: Path) -> None:
    """Have no machine wait at a path any more; on disk when this returns.

    Raises:
        OSError: One may wait there still.
    """
    path.unlink(missing_ok=True)
    _sync_folder(path.parent)


def forget(path: Path, machine: str) -> None:
    """Remove what lies at a path, and what a writer that was killed left beside it, where it names this machine.

    Raises:
        OSError: It may lie there still.
    """
    for each in (path, path.with_name(path.name + _NEW)):
        if _names(each, machine):
            each.unlink(missing_ok=True)


def _names(path: Path, machine: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        return machine.encode() in file.read(_HEAD_BYTES)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
