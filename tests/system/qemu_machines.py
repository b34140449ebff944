"""Machines of real QEMUs whose guest counts, for tests of whole migrations."""

import asyncio
import contextlib
import json
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.qemu_guest.build import Guest, build
from tests.qemu_guest.newer import newer_qemu
from tests.qemu_guest.serial import counts, without_gap
from tests.system.attempts import DEADLINE, MIB, policy
from tests.system.site import Site
from vm_migration.api.v1 import types_pb2
from vm_migration.machine.qemu.stream_tls import FOLDER
from vmm.assembly.specification import MachineSpecification, check_specification

MEMORY = 128 * MIB
SECTORS, SECTOR = 64, 512
"""Those of a disk that its guest writes to, in bytes: see counter.S."""
PROGRAM = shutil.which("qemu-system-x86_64") or "qemu-system-x86_64"


def folders_of_tls(site: Site) -> list[Path]:
    """Return where certificates lie that were given to a QEMU: nowhere, but while it reads them."""
    return [path for host in site.budgets for path in (site.folder / host).rglob(FOLDER)]


def slow(channels: int = 1, transport: str = "grpc") -> types_pb2.Policy:
    """Return a policy under which the first pass takes seconds."""
    return policy(limit_ms=1000, bandwidth=4 * MIB, streams=channels, transport=transport)


@contextlib.contextmanager
def two_hosts(sections: Callable[[Path], str] = lambda _folder: "") -> Iterator[Site]:
    """Have two hosts with room for a few machines; `sections` says what everybody reads, given the site's folder."""
    with tempfile.TemporaryDirectory(prefix="viaduct-") as name:
        folder = Path(name)
        site = Site(folder, {"host-a": "1GiB", "host-b": "1GiB"}, hooks=sections(folder))
        with contextlib.closing(site):
            yield site


def programs_of(config: pytest.Config) -> dict[str, str]:
    """Return 7.2, which tells a stream's connections apart by the order in which they come, and one that does not."""
    cache = config.cache
    assert cache is not None
    return {"debian": PROGRAM, "newer": str(newer_qemu(cache.mkdir("newer-qemu")))}


def guest_that_counts(config: pytest.Config, folders: pytest.TempPathFactory) -> Guest:
    """Return a guest that writes to its memory and counts."""
    cache = config.cache
    assert cache is not None
    return build(cache.mkdir("qemu-guest"), folders.mktemp("guest"), rate=4 * MIB, working_set=16 * MIB)


def guest_with_a_disk(config: pytest.Config, folders: pytest.TempPathFactory) -> Guest:
    """Return one that also writes to a disk, through a vIOMMU, and checks what lies there."""
    cache = config.cache
    assert cache is not None
    folder = folders.mktemp("guest")
    return build(cache.mkdir("qemu-guest"), folder, rate=4 * MIB, working_set=16 * MIB, disk=True)


def image(folder: Path) -> Path:
    """Make an empty disk."""
    made = folder / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(made), "16M"], check=True)
    return made


def sectors(image: Path) -> list[int]:
    """Return the number at the start of each sector that a guest writes to.

    Raises:
        AssertionError: The image's own tables are damaged.
    """
    checked = subprocess.run(["qemu-img", "check", "-q", str(image)], check=False)
    assert checked.returncode == 0, "The image is damaged"
    raw = image.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(image), str(raw)], check=True)
    with raw.open("rb") as file:
        return [struct.unpack("<Q", file.read(SECTOR)[:8])[0] for _ in range(SECTORS)]


def offer(*programs: str) -> str:
    """Return the section without which no host runs any."""
    return f"[offer]\nqemu = {json.dumps(programs)}\n"


def specification(
    guest: Guest, serial: Path, *more: str, binary: str = PROGRAM, disk: Path | None = None, name: str = "real"
) -> MachineSpecification:
    """Return a machine whose guest prints into a file that both hosts have; its disk is a file, too."""
    return _specification(name, "128MiB", (*guest.arguments(serial), *more), binary=binary, disk=disk)


def bare(*arguments: str, binary: str = PROGRAM, disk: Path | None = None, shared: bool = True) -> MachineSpecification:
    """Return a machine whose firmware finds nothing to boot."""
    return _specification("bare", "64MiB", arguments, binary=binary, disk=disk, shared=shared)


def _specification(
    name: str, size: str, arguments: Sequence[str], *, binary: str, disk: Path | None, shared: bool = True
) -> MachineSpecification:
    qemu: dict[str, object] = {"binary": binary, "arguments": ["-accel", "tcg", *arguments]}
    if disk is not None:
        qemu["disk"] = [{"name": "root", "file": str(disk), "format": "qcow2", "shared": shared}]
    return check_specification({"name": name, "kind": "qemu", "memory": {"size": size}, "qemu": qemu}, name)


async def counted(serial: Path, above: int = 0) -> int:
    """Wait until the guest has counted further than that, without gap or repeat; return how far."""
    async with asyncio.timeout(DEADLINE if above else 3 * DEADLINE):  # the first comes after a kernel has booted
        while not (found := counts(serial)) or found[-1] <= above + 3:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)
    assert without_gap(found)
    return found[-1]


async def until(holds: Callable[[], bool], otherwise: str) -> None:
    """Wait until something holds, which lies in files and processes."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not holds():  # noqa: ASYNC110 - files have no event
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(otherwise) from None
