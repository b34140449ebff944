"""The file that a report is written to: whole or not at all, and nothing else is written over."""

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vm_migration.errors import Refused

_LOOKED_AT: Final = 8192


@dataclass(frozen=True, slots=True)
class Written:
    """Where a report is, in full, and its size."""

    file: Path
    bytes: int


def require_writable(path: Path, mark: str) -> None:
    """Accept the name of a file that is new, or holds an earlier report, which has `mark` near its beginning.

    Raises:
        Refused: Its folder is not there, or something else is, or it cannot be read.
    """
    if not path.absolute().parent.is_dir():
        hint = "Make it, or name another file"
        raise Refused("no-folder", f"There is no folder {path.absolute().parent}", hint)
    try:
        if path.is_dir():
            raise Refused("file-exists", f"{path} is a folder", "Name a file in it")
        if path.exists() and not _is_report(path, mark):
            raise Refused("file-exists", f"{path} exists already and is no report", "Name another file, or remove it")
    except OSError as error:
        raise _cannot_write(path, error) from None


def write_report(path: Path, text: str) -> Written:
    """Write a report in the place of an earlier one; a failure leaves what was there.

    Raises:
        Refused: It cannot be written.
    """
    place = path.resolve()
    data = text.encode()
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file:
            file.write(data)
        fresh.rename(place)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise _cannot_write(path, error) from None
    return Written(place, len(data))


def _is_report(path: Path, mark: str) -> bool:
    if not stat.S_ISREG(path.stat().st_mode):
        return False
    with path.open("rb") as file:
        return mark.encode() in file.read(_LOOKED_AT)


def _cannot_write(path: Path, error: OSError) -> Refused:
    return Refused("file-unusable", f"{path} cannot be written: {error.strerror}", "Name another file")
