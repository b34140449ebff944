"""The codecs in which page data travel: a frame's pages are compressed by one call and made again by one.

A frame has 1 MiB of pages at most, and so has what a peer can make of few bytes here: what comes out has a size that is
known before, and nothing is allocated past it. A codec's context is kept, for to make one takes longer than a page.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol, cast

import lz4.block
import zstandard

from vm_migration.transfer.errors import BadContents
from vm_migration.transfer.frames import MAX_PAYLOAD, Codec, CompressedPages

_ZSTD_LEVEL: Final = 1
"""The fastest but the negative ones, whose place lz4 has."""


class _Lz4Decompress(Protocol):
    def __call__(self, source: memoryview, *, uncompressed_size: int) -> bytes: ...


_lz4_compress: Final = cast("Callable[[memoryview], bytes]", partial(lz4.block.compress, store_size=False))
_lz4_decompress: Final = cast("_Lz4Decompress", lz4.block.decompress)
_Lz4Error: Final = cast("type[Exception]", lz4.block.LZ4BlockError)


class Compressor:
    """Compresses one stream's page data; for one call at a time."""

    __slots__ = ("_zstd",)

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_content_size=True)

    def compressed(self, codec: Codec, data: memoryview) -> bytes:
        """Return page data as one lz4 block or one zstd frame; it may be longer than they are."""
        if codec is Codec.LZ4:
            return _lz4_compress(data)
        return self._zstd.compress(data)


class Decompressor:
    """Makes page data of what a stream brought; for one call at a time."""

    __slots__ = ("_zstd",)

    def __init__(self) -> None:
        self._zstd = zstandard.ZstdDecompressor(max_window_size=MAX_PAYLOAD)

    def page_data_of(self, body: CompressedPages) -> memoryview:
        """Return the page data of a frame, or what has changed in them; raises what `page_data` does."""
        return memoryview(self.page_data(body.codec, body.data, body.page_bytes))

    def page_data(self, codec: Codec, data: memoryview, size: int) -> bytes:
        """Return the page data, which are of exactly so many bytes.

        Raises:
            BadContents: They are not, or it is no lz4 block or zstd frame; at most `size` bytes were allocated.
        """
        try:
            made = _lz4_decompress(data, uncompressed_size=size) if codec is Codec.LZ4 else self._zstd_frame(data, size)
        except (_Lz4Error, zstandard.ZstdError, ValueError) as error:
            raise BadContents(f"{codec.name} data of {len(data)} bytes cannot be read: {error}") from error
        if len(made) != size:
            raise BadContents(f"{codec.name} data hold {len(made)} bytes, not {size}")
        return made

    def _zstd_frame(self, data: memoryview, size: int) -> bytes:
        told = zstandard.frame_content_size(data)  # what the library would allocate
        if told != size:
            raise BadContents(f"ZSTD data say that they hold {told} bytes, not {size}")
        return self._zstd.decompress(data, max_output_size=size, allow_extra_data=False)
