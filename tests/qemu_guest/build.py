"""Making the guest: its kernel through apt, its program with the machine's assembler."""

import fcntl
import math
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.qemu_guest.initramfs import initramfs

KERNEL_PACKAGE: Final = "linux-image-cloud-amd64"
COMMAND_LINE: Final = "console=ttyS0 quiet loglevel=0 panic=-1 tsc=unstable no_timer_check mitigations=off nokaslr"
"""`quiet`: nothing of the kernel's own between two counts."""
BEHIND_VIOMMU: Final = "intel_iommu=on iommu.passthrough=0 iommu.strict=1"
"""What a device may reach is mapped for each of its transfers, and no longer."""
VIOMMU: Final = (
    "-device", "intel-iommu",
    "-global", "virtio-blk-pci.disable-legacy=on", "-global", "virtio-blk-pci.iommu_platform=on",
)  # fmt: skip
"""A vIOMMU, and disks whose DMA goes through it; virtio goes past one unless it is told."""
TICKS_PER_SECOND: Final = 100
DISK_MODULES: Final = (
    "virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_modern_dev", "virtio/virtio_pci_legacy_dev",
    "virtio/virtio_pci", "block/virtio_blk",
)  # fmt: skip
"""What brings /dev/vda, in the order in which one needs the other."""
_PAGE: Final = 4096
_GOLDEN: Final = 0.618034
_SECONDS: Final = 120.0
_SOURCE: Final = Path(__file__).with_name("counter.S")


@dataclass(frozen=True, slots=True)
class Guest:
    """What `qemu-system-x86_64` boots."""

    kernel: Path
    initramfs: Path
    disk: bool = False
    """It writes to a disk, whose DMA goes through a vIOMMU."""

    def arguments(self, serial: Path) -> tuple[str, ...]:
        """Return QEMU's arguments that boot it, with what it prints in a file."""
        options = f"{COMMAND_LINE} {BEHIND_VIOMMU}" if self.disk else COMMAND_LINE
        return (
            *(VIOMMU if self.disk else ()),
            "-kernel", str(self.kernel), "-initrd", str(self.initramfs), "-append", options,
            "-chardev", f"file,id=serial,path={serial},append=on", "-serial", "chardev:serial",
        )  # fmt: skip


def build(cache: Path, folder: Path, *, rate: int, working_set: int, disk: bool = False) -> Guest:
    """Make a guest that writes `rate` bytes a second of distinct pages over a working set of so many bytes.

    With a disk it also checks and writes a sector of that in each tick, through a vIOMMU. The kernel stays in `cache`,
    the rest goes into `folder`.

    Raises:
        RuntimeError: apt or binutils is missing or refuses; what it said is in the message.
    """
    pages = working_set // _PAGE
    booted = kernel(cache)
    modules = tuple(_module(cache, name) for name in DISK_MODULES) if disk else ()
    symbols = {"PAGES": pages, "PAGES_PER_TICK": rate // _PAGE // TICKS_PER_SECOND, "STEP": _stride(pages)}
    symbols["DISK"] = len(modules)
    built, program = folder / "counter.o", folder / "counter"
    _run("as", "--64", *(f"--defsym={name}={value}" for name, value in symbols.items()), "-o", str(built), str(_SOURCE))
    _run("ld", "-static", "--build-id=none", "-o", str(program), str(built))
    archive = folder / f"counter-{rate}-{working_set}-{len(modules)}.cpio"
    archive.write_bytes(initramfs(program.read_bytes(), modules))
    return Guest(booted, archive, disk)


def _module(cache: Path, name: str) -> bytes:
    """Return a module of the kernel that `kernel` has left unpacked."""
    (found,) = (cache / "unpacked" / "lib" / "modules").glob(f"*/kernel/drivers/{name}.ko")
    return found.read_bytes()


def kernel(cache: Path) -> Path:
    """Return Debian's kernel, fetched the first time; whoever comes meanwhile waits.

    Raises:
        RuntimeError: apt has it not; what it said is in the message.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = cache / "vmlinuz"
        if not kept.exists():
            found = _unpacked(cache)
            found.rename(kept)
        return kept


def _unpacked(cache: Path) -> Path:
    package = _newest()
    _run("apt-get", "download", "-q", package, folder=cache)
    (archive,) = cache.glob(f"{package}_*.deb")
    tree = cache / "unpacked"
    _run("dpkg-deb", "-x", str(archive), str(tree))
    archive.unlink()
    (found,) = (tree / "boot").glob("vmlinuz-*")
    return found


def _newest() -> str:
    """Return the package of the kernel itself, to which the one with the lasting name leads."""
    told = _run("apt-cache", "depends", "--important", KERNEL_PACKAGE)
    for line in told.splitlines():
        word, _, name = line.strip().partition(" ")
        if word == "Depends:" and name.startswith("linux-image-"):
            return name
    raise RuntimeError(f"apt knows no {KERNEL_PACKAGE}: apt-get update ({told!r})")


def _run(*command: str, folder: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, check=False, text=True, timeout=_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except FileNotFoundError:
        raise RuntimeError(f"{command[0]} is missing") from None
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _stride(pages: int) -> int:
    """Return the step that visits every page once before the first comes again: near the golden section of them."""
    step = int(pages * _GOLDEN)
    while math.gcd(step, pages) != 1:
        step += 1
    return step
