"""A QEMU that is newer than this Debian's own: 10.0, from its backports, unpacked beside it and not installed."""

import fcntl
import os
import re
import subprocess
from pathlib import Path
from typing import Final

SOURCES: Final = Path("/etc/apt/sources.list.d/debian.sources")
_PACKAGES: Final = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios")
_SECONDS: Final = 120.0
_PROGRAM: Final = """#!/bin/sh
export QEMU_MODULE_DIR={tree}/usr/lib/x86_64-linux-gnu/qemu
exec {tree}/usr/bin/qemu-system-x86_64 -L {tree}/usr/share/qemu -L {tree}/usr/share/seabios "$@"
"""


def newer_qemu(cache: Path) -> Path:
    """Return a program that is started as `qemu-system-x86_64` is; it is fetched the first time, by one at a time.

    Raises:
        RuntimeError: apt has it not; what it said is in the message.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        program = cache / "qemu-system-x86_64"
        if not program.exists():
            _unpack(cache)
            made = program.with_suffix(".new")
            made.write_text(_PROGRAM.format(tree=cache / "tree"))
            made.chmod(0o755)
            made.rename(program)
        return program


def _unpack(cache: Path) -> None:
    said = SOURCES.read_text()
    mirror, key = _field(said, "URIs"), _field(said, "Signed-By")
    suite = f"{_field(said, 'Suites')}-backports"
    lists, packages, listed = cache / "lists", cache / "packages", cache / "backports.list"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    packages.mkdir(exist_ok=True)
    listed.write_text(f"deb [signed-by={key}] {mirror} {suite} main\n")
    places = {"Dir::Etc::sourcelist": listed, "Dir::Etc::sourceparts": "-", "Dir::State::lists": lists}
    options = [word for name, place in places.items() for word in ("-o", f"{name}={place}")]
    _run("apt-get", *options, "-qq", "update")
    _run("apt-get", *options, "-q", "download", *(f"{name}/{suite}" for name in _PACKAGES), folder=packages)
    for package in packages.glob("*.deb"):
        _run("dpkg-deb", "-x", str(package), str(cache / "tree"))
        package.unlink()


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{name}:\s*(\S+)", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{SOURCES} names no {name}")
    return found[1]


def _run(*command: str, folder: Path | None = None) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, check=False, text=True, timeout=_SECONDS,
        env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
