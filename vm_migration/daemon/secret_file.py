"""A secret that lies in a file, and who may read that file.

Secrets come from files or the environment, never from a command line, which everybody on a host can read.
"""

import stat
from pathlib import Path
from typing import Final

from vm_migration.errors import InvalidInput

MAX_SECRET: Final = 4096
"""Bytes of a secret."""
MODES_ALLOWED: Final = "mode 0600 or 0640"
_OTHERS: Final = stat.S_IRWXO | stat.S_IWGRP


def open_to_others(path: Path) -> str | None:
    """Return why a file cannot hold a secret, or None where it can; a group may read it, and nobody else."""
    mode = stat.S_IMODE(path.stat().st_mode)
    return f"Everybody can read this file (mode {mode:04o})" if mode & _OTHERS else None


def read_secret(path: Path) -> str:
    """Return the secret that is alone in a file; the end of its line is not part of it.

    Raises:
        InvalidInput: The file cannot be read, others can read it, or what it holds is no secret.
    """
    try:
        if not path.is_file():  # a pipe might never end, or begin
            path.stat()
            raise InvalidInput("secret-unreadable", f"{path} is no file", "a readable file")
        wrong = open_to_others(path)
        if wrong is not None:
            raise InvalidInput("secret-readable", f"{path}: {wrong}", MODES_ALLOWED)
        with path.open("rb") as file:
            data = file.read(MAX_SECRET + 1)
    except OSError as error:
        raise InvalidInput("secret-unreadable", f"{path} cannot be read: {error.strerror}", "a readable file") from None
    try:
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or not 0 < len(text) <= MAX_SECRET:
        raise InvalidInput("bad-secret", f"{path} does not hold one line of text", f"1 to {MAX_SECRET} characters")
    return text
