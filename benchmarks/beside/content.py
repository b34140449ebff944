"""What a guest's RAM holds in a row of the table, as a file: the same bytes for QEMU and for us.

==============  ====================================================================================
incompressible  random bytes
booted          a third zero pages; a third code and text, real files of this machine; the rest mixed:
                pages of pointers, small numbers and random words, as heaps and tables are
mostly-zero     one page in sixteen holds random bytes
==============  ====================================================================================

Kinds alternate in runs of 64 KiB in an order that follows from the seed.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Content = Literal["incompressible", "booted", "mostly-zero"]

MEMORY_FILES: Final = "/dev/shm"  # noqa: S108 - RAM as a file must lie in memory; whoever writes takes a folder of its own
"""Where RAM lies as a file."""
RUN: Final = 64 << 10
_PIECE: Final = 64 << 20
_FOLDERS: Final = ("/usr/lib", "/usr/share", "/usr/bin", "/usr/include", "/var/lib/dpkg")
_ONE_IN: Final = 16
_HEAP: Final = 0x7F0000000000

Words = npt.NDArray[np.uint64]


def write_content(path: Path, size: int, content: Content, seed: int) -> None:
    """Write so many bytes; holes are zeros.

    Raises:
        RuntimeError: This machine has too few files for `booted`.
    """
    random = np.random.default_rng(seed)
    with path.open("wb") as file:
        if content == "incompressible":
            for start in range(0, size, _PIECE):
                file.write(random.bytes(min(_PIECE, size - start)))
        else:
            text = _files(_FOLDERS)
            for start, kind in zip(range(0, size, RUN), kinds(size // RUN, content, random), strict=True):
                if kind == "zero":
                    continue
                file.seek(start)
                file.write(_text(text) if kind == "text" else _filled(kind, random))
        file.truncate(size)


def kinds(runs: int, content: Content, random: np.random.Generator) -> list[str]:
    """Return what each run of 64 KiB is, in an order that nobody chose."""
    if content == "mostly-zero":
        filled = max(1, runs // _ONE_IN)
        listed = ["random"] * filled + ["zero"] * (runs - filled)
    else:
        third = runs // 3
        listed = ["zero"] * third + ["text"] * third + ["mixed"] * (runs - 2 * third)
    return [listed[place] for place in random.permutation(runs).tolist()]


def _filled(kind: str, random: np.random.Generator) -> bytes:
    return random.bytes(RUN) if kind == "random" else mixed(random).tobytes()


def mixed(random: np.random.Generator) -> Words:
    """Return a run of words: a third pointers into one heap, a third small numbers, a third random."""
    words = random.integers(0, 1 << 63, RUN // 8, dtype=np.uint64)
    which = random.integers(0, 3, len(words))
    words[which == 0] = np.uint64(_HEAP) + (words[which == 0] & np.uint64(0xFFFFF0))
    words[which == 1] &= np.uint64(0xFF)
    return words


def _text(pieces: Iterator[bytes]) -> bytes:
    gathered = bytearray()
    while len(gathered) < RUN:
        piece = next(pieces, None)
        if piece is None:
            raise RuntimeError(f"Too few files under {', '.join(_FOLDERS)} for so much RAM of code and text")
        gathered += piece
    return bytes(gathered[:RUN])


def _files(folders: tuple[str, ...]) -> Iterator[bytes]:
    """Yield runs of real files, each at a page's boundary as in a page cache; each file once."""
    for folder in folders:
        for place, below, names in os.walk(folder):
            below.sort()
            for name in sorted(names):
                path = Path(place, name)
                if path.is_symlink() or not path.is_file():
                    continue
                yield from _pieces(path)


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(RUN):
                yield piece + bytes(-len(piece) % 4096)
    except OSError:
        return
