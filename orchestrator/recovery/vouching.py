"""The question that a person answers before a machine starts on their word.

The answer is the name of the host, typed out: it is that host that they vouch for, and no habit of the fingers.
"""

import asyncio
import getpass
import os
import socket
import sys
from datetime import UTC, datetime
from typing import TextIO

from orchestrator.recovery.fenced_word import Word
from vm_migration.errors import Refused, Unauthorised
from vm_migration.link.identity import Role
from vm_migration.link.refusals import NOBODY
from vm_migration.link.tls import TlsFiles


def may_ask(stdin: TextIO, stderr: TextIO) -> bool:
    """Tell whether there is a person to ask."""
    return stdin.isatty() and stderr.isatty()


async def require_files_gone(machine: str) -> None:
    """Ask on the terminal whether what a machine waited in is gone.

    Raises:
        Refused: The answer was anything but its name.
    """
    what = "to vouch that the files in which it waited are gone for good, and it with them"
    await _require_typed(machine, what, "Mount its file system: viaduct doctor")


async def require_vouched(host: str) -> None:
    """Ask on the terminal whether a host is off.

    Raises:
        Refused: The answer was anything but its name.
    """
    what = "to vouch that it is off, and stays off until it is brought back here"
    await _require_typed(host, what, f"Turn {host} off first")


async def _require_typed(name: str, what: str, hint: str) -> None:
    sys.stderr.write(f"Type {name} {what}: ")
    sys.stderr.flush()
    if await _line(sys.stdin.fileno()) != name:
        raise Refused("not-vouched", "Nothing was done: the answer was not that name", hint)


def refusal(question: str) -> Refused:
    """Return what is said where nobody can be asked."""
    text = f"Nothing was done: nobody can be asked here whether {question}"
    return Refused("not-vouched", text, "Vouch for it with --yes, or run this on a terminal")


def vouched_gone(now: float) -> str:
    """Return who gives the word that a machine's files are gone, and when: `now` is seconds since 1970."""
    return f"{person()} at {_moment(now)}: its files are gone"


def vouched(word: Word, now: float) -> str:
    """Return who gave this word, when (`now` is seconds since 1970) and what it says; journals keep it."""
    off = ", ".join((word.fenced, *word.also_off))
    missing = ", writes may be missing" if word.may_miss_writes else ""
    return f"{person()} at {_moment(now)}: {off} off{missing}"


def _moment(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")


def person() -> str:
    """Return who runs this, and where, as the system knows them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


async def _line(descriptor: int) -> str:
    """Read one line without keeping the loop, so that Ctrl-C ends it as it ends everything."""
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[str] = loop.create_future()
    read = bytearray()

    def more() -> None:
        part = os.read(descriptor, 1024)
        read.extend(part)
        if (not part or b"\n" in read) and not typed.done():
            typed.set_result(read.decode(errors="replace").strip())

    loop.add_reader(descriptor, more)
    try:
        return await typed
    finally:
        loop.remove_reader(descriptor)


def require_operator(files: TlsFiles | None) -> str:
    """Accept an operator's certificate, before anything is asked or done, and return whose it is.

    Plaintext on loopback has no identities.

    Raises:
        Unauthorised: It is of another role: an orchestrator vouches for nobody.
        InvalidInput: The TLS files are unusable.
    """
    identity = None if files is None else files.load().identity
    if identity is not None and identity.role is not Role.OPERATOR:
        hint = "Use an operator's certificate in [tls]: viaduct pki issue NAME --role operator"
        raise Unauthorised("role", f"{identity.uri} cannot vouch that a host is off", hint)
    return NOBODY if identity is None else identity.uri
