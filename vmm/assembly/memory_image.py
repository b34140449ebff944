"""What RAM holds when a machine is created: a file's contents, or a mixture like that of a booted system.

The mixture is a third zero pages, which stay holes and cost nothing, a third machine code and a third text, in
extents of 64 to 256 KiB. The material (some 30 MiB) is repeated where RAM is larger; each repetition starts at
another odd byte offset, so that its pages differ from those of the one before, although a compressor with a window
as large as the material would see through it.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from vmm.assembly.document_faults import Fault, InvalidDocument
from vmm.guest.host_material import read_material
from vmm.guest.material import Material
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.guest_physical import page_count
from vmm.memory.quantities import PAGE_SHIFT, PAGE_SIZE
from vmm.memory.ram_block import RamBlock

_EXTENT_PAGES: Final = (16, 65)
_SHIFT: Final = 1237
_IMAGE_CHUNK: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class MemorySource:
    """Where the initial contents came from; the hash is that of the image, or of the mixture's material."""

    kind: Literal["image", "mixture"]
    files: tuple[str, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class _Extent:
    first_page: int
    data: memoryview


def fill(block: RamBlock, image: str | None) -> MemorySource:
    """Fill a fresh block from an image where there is one, else with the mixture; see both for what they raise."""
    return fill_from_mixture(block) if image is None else fill_from_image(block, Path(image))


def fill_from_mixture(block: RamBlock, seed: int = 0, workers: int = 2) -> MemorySource:
    """Fill a fresh block with the mixture; the same seed on the same host gives the same bytes.

    Raises:
        NoMaterial: The host has none of the files.
        MemoryError: The host has no memory left; the block is partly filled.
    """
    material = read_material()

    def write(extent: _Extent) -> None:
        start = extent.first_page << PAGE_SHIFT
        block.populate(extent.first_page, len(extent.data) >> PAGE_SHIFT)
        block.data[start : start + len(extent.data)] = extent.data

    with ThreadPoolExecutor(workers, thread_name_prefix="fill") as pool:
        for _ in pool.map(write, list(_extents(material, block.pages, seed))):
            pass
    return MemorySource("mixture", material.files, material.sha256)


def fill_from_image(block: RamBlock, path: Path) -> MemorySource:
    """Fill a fresh block from its start with a file; pages of zeros stay holes.

    Raises:
        InvalidDocument: The file cannot be read or is larger than the RAM. The block may be partly filled.
        MemoryError: The host has no memory left; the block is partly filled.
    """
    digest, first_page, buffer = hashlib.sha256(), 0, np.zeros((_IMAGE_CHUNK >> PAGE_SHIFT, PAGE_SIZE), dtype=np.uint8)
    view = buffer.data.cast("B")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > block.size:
                raise _unusable(path, f"{size} bytes do not fit into RAM of {block.size}")
            while count := file.readinto(view):
                pages = page_count(count)
                if first_page + pages > block.pages:
                    raise _unusable(path, "The file grew while it was read")
                digest.update(view[:count])
                buffer.reshape(-1)[count : pages << PAGE_SHIFT] = 0
                _write_data(block, first_page, buffer[:pages])
                first_page += pages
    except OSError as error:
        raise _unusable(path, f"Cannot be read: {error.strerror}") from None
    return MemorySource("image", (str(path),), digest.hexdigest())


def _unusable(path: Path, problem: str) -> InvalidDocument:
    return InvalidDocument([Fault(str(path), "memory.image", problem, "")])


def _write_data(block: RamBlock, first_page: int, contents: npt.NDArray[np.uint8]) -> None:
    held = DirtyBitmap.from_pages(len(contents), np.flatnonzero(contents.any(axis=1)))
    for first, count in held.runs():
        start = (first_page + first) << PAGE_SHIFT
        block.data[start : start + (count << PAGE_SHIFT)] = contents[first : first + count].reshape(-1).data


def _extents(material: Material, pages: int, seed: int) -> Iterator[_Extent]:
    """Yield the extents to write; each group of three extents of one size has one of each kind, in random order."""
    random = np.random.default_rng(seed)
    sources = {1: _Repetition(material.code), 2: _Repetition(material.text)}
    position = 0
    while position < pages:
        size = int(random.integers(*_EXTENT_PAGES))
        for kind in random.permutation(3).tolist():
            count = min(size, pages - position)
            if kind in sources and count:
                yield _Extent(position, sources[kind].take(count << PAGE_SHIFT))
            position += count


class _Repetition:
    """Material without end: it begins again, a little further on each time."""

    def __init__(self, data: bytes) -> None:
        needed = _EXTENT_PAGES[1] << PAGE_SHIFT
        self._length = len(data)
        self._data = memoryview(data * (1 + -(-needed // len(data))))
        self._position, self._start = 0, 0

    def take(self, length: int) -> memoryview:
        taken = self._data[self._position : self._position + length]
        self._position += length
        if self._position >= self._length:
            self._start = (self._start + _SHIFT) % min(self._length, PAGE_SIZE)
            self._position = self._start
        return taken
