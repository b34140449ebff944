"""The guest that QEMU runs here: built by the machine's assembler for one rate, and read from outside through its RAM.

There is no operating system in it (TCG takes seconds to boot one, and it would write as it likes): guest.S.
"""

import asyncio
import math
import mmap
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("guest.S")
PAGE: Final = 4096
FIRST_PAGE: Final = (64 << 20) // PAGE
"""Where the working set begins: above what firmware and guest use for themselves."""
MOST_RATE: Final = 84 << 20
"""Bytes a second: what the guest's 32-bit arithmetic of 56 ms can hold."""
_GOLDEN: Final = 0.618034
_STATUS: Final = 0x200000
_MARK: Final = 0x76647563
_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class GuestLoad:
    """What the guest writes: bytes a second, over so many bytes of working set."""

    rate: int = 0
    working_set: int = 64 << 20

    def symbols(self) -> dict[str, int]:
        """Return what guest.S is told.

        Raises:
            ValueError: It cannot write so fast.
        """
        if self.rate > MOST_RATE:
            raise ValueError(f"The guest for QEMU writes at most {MOST_RATE} B/s, not {self.rate}")
        pages = self.working_set // PAGE
        return {
            "PAGES_PER_SECOND": self.rate // PAGE,
            "FIRST_PAGE": FIRST_PAGE,
            "PAGES": pages,
            "STEP": stride(pages),
        }


def stride(pages: int) -> int:
    """Return the step that visits every page once before the first comes again: near the golden section of them."""
    step = int(pages * _GOLDEN)
    while math.gcd(step, pages) != 1:
        step += 1
    return step


def build(folder: Path, load: GuestLoad) -> Path:
    """Assemble and link the guest; return the file that `qemu -kernel` takes.

    Raises:
        RuntimeError: binutils is missing, or refuses it; what it said is in the message.
    """
    built, kernel = folder / "guest.o", folder / f"guest-{load.rate}-{load.working_set}.elf"
    symbols = [f"--defsym={name}={value}" for name, value in load.symbols().items()]
    for command in (
        ["as", "--32", *symbols, "-o", str(built), str(SOURCE)],
        ["ld", "-m", "elf_i386", "-Ttext=0x100000", "--build-id=none", "-o", str(kernel), str(built)],
    ):
        try:
            done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=_SECONDS)
        except FileNotFoundError:
            raise RuntimeError(f"{command[0]} is missing: apt-get install binutils") from None
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} refused the guest: {done.stderr.strip()}")
    return kernel


class GuestRam:
    """The source's RAM as its file shows it: what the guest has written so far, counted by itself."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._seen = mmap.mmap(file.fileno(), PAGE, offset=_STATUS)

    def forget(self) -> None:
        """Take an earlier guest's mark out, before a new one starts on the same file."""
        self._seen[:8] = bytes(8)

    def pages_written(self) -> int | None:
        """Return the guest's own count; None before it has begun. It wraps at 2^32."""
        mark, count = struct.unpack_from("<II", self._seen)
        return int(count) if mark == _MARK else None

    async def begun(self) -> None:
        """Wait until the firmware is through and the guest runs.

        Raises:
            TimeoutError: It did not come up.
        """
        async with asyncio.timeout(_SECONDS):
            while self.pages_written() is None:  # noqa: ASYNC110 - memory has no event
                await asyncio.sleep(0.01)

    async def rate(self, seconds: float) -> float:
        """Return bytes a second that the guest writes, over a while."""
        first, began = self.pages_written() or 0, time.monotonic()
        await asyncio.sleep(seconds)
        return ((self.pages_written() or 0) - first) * PAGE / (time.monotonic() - began)

    def close(self) -> None:
        """Let the file go."""
        self._seen.close()
