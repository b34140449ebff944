"""Compressed pages (vm_migration.transfer.codecs): a byte names the codec, the next how many pages are expected."""

import numpy as np

from tests.fuzz.target import Broken, Target
from vm_migration.transfer.codecs import Compressor, Decompressor
from vm_migration.transfer.errors import BadContents
from vm_migration.transfer.frames import Codec
from vmm.memory.quantities import PAGE_SIZE

_decompressor = Decompressor()


def _size(data: bytes) -> int:
    return (1 + data[1]) * PAGE_SIZE if len(data) > 1 else PAGE_SIZE


def _read(data: bytes) -> None:
    codec = Codec.LZ4 if data[:1] == b"\1" else Codec.ZSTD
    made = _decompressor.page_data(codec, memoryview(data)[2:], _size(data))
    if len(made) != _size(data):
        raise Broken(f"{len(made)} bytes were made where {_size(data)} were asked for")


def _seed(codec: Codec, pages: int) -> bytes:
    contents = np.arange(pages * PAGE_SIZE // 2, dtype="<u2").tobytes()
    return bytes((codec, pages - 1)) + Compressor().compressed(codec, memoryview(contents))


TARGET = Target(
    "page_data",
    _read,
    refusals=(BadContents,),
    seeds={"lz4": _seed(Codec.LZ4, 1), "zstd": _seed(Codec.ZSTD, 2), "lz4-two": _seed(Codec.LZ4, 2)},
    declared=lambda data: 2 * _size(data),
)
