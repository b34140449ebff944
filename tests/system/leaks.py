"""Secrets, in each spelling that they could leave by, and where bytes of a site can be looked through for them."""

import base64
import contextlib
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_LOOK_SECONDS = 0.1
_KEY_LINE = 40
"""Letters of a line of a private key from which on it is one: the last line of a PEM file may be short."""


@dataclass
class Secrets:
    """What must not be found, by what it is."""

    needles: dict[bytes, str] = field(default_factory=dict)

    def add(self, what: str, secret: bytes) -> None:
        """Look for some bytes as they are, in hexadecimal, and in base64 wherever in it they begin."""
        self.needles[secret] = what
        self.needles[secret.hex().encode()] = f"{what}, in hexadecimal"
        for shift in range(3):
            whole = base64.b64encode(bytes(shift) + secret)
            inner = whole[-(-8 * shift // 6) : -4]  # letters that also hold bits of what stands beside it differ
            self.needles[inner] = f"{what}, in base64"

    def add_key(self, path: Path) -> None:
        """Look for a private key of a PEM file: each of its lines."""
        lines = [line for line in path.read_text().splitlines() if not line.startswith("-----")]
        assert any(len(line) >= _KEY_LINE for line in lines)
        for line in lines:
            if len(line) >= _KEY_LINE:
                self.needles[line.encode()] = f"private key {path.name}"

    def found_in(self, places: Mapping[str, bytes]) -> list[str]:
        """Return what was found where."""
        return [
            f"{what} in {place}"
            for place, data in places.items()
            for needle, what in self.needles.items()
            if needle in data
        ]


def files_under(folder: Path, *patterns: str) -> dict[str, bytes]:
    """Return the contents of files by their paths; each pattern must name one at least."""
    found = {}
    for pattern in patterns:
        paths = [path for path in folder.rglob(pattern) if path.is_file()]
        assert paths, f"{folder} holds no {pattern}"
        found.update({str(path): path.read_bytes() for path in paths})
    return found


def members_of(bundle: Path) -> dict[str, bytes]:
    """Return what is packed in a tar file, by name."""
    with tarfile.open(bundle) as archive:
        packed = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        return {f"{bundle.name}:{name}": file.read() for name, file in packed.items() if file is not None}


@contextlib.contextmanager
def command_lines() -> Iterator[dict[str, bytes]]:
    """Gather the command lines of every process of this machine that lives while the context is entered."""
    seen: dict[str, bytes] = {}
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):  # /proc tells nobody of a new process
            for entry in Path("/proc").iterdir():
                if entry.name.isdecimal():
                    with contextlib.suppress(OSError):
                        line = (entry / "cmdline").read_bytes()
                        seen[f"command line {line[:80]!r} of process {entry.name}"] = line

    watching = threading.Thread(target=look, name="command lines")
    watching.start()
    try:
        yield seen
    finally:
        over.set()
        watching.join()
