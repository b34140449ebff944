"""Page data through each codec, and that what a peer sends cannot make more of itself than it says."""

import lz4.block
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.transfer.codecs import Compressor, Decompressor
from vm_migration.transfer.errors import BadContents
from vm_migration.transfer.frames import Codec

codecs = st.sampled_from(Codec)


@given(codecs, st.binary(min_size=1, max_size=64), st.integers(1, 3))
@settings(max_examples=60)
def test_page_data_come_out_as_they_went_in(codec: Codec, pattern: bytes, pages: int) -> None:
    data = (pattern * 4096)[: pages * 4096]
    packed = Compressor().compressed(codec, memoryview(data))
    assert Decompressor().page_data(codec, memoryview(packed), len(data)) == data


@pytest.mark.parametrize("codec", Codec)
def test_random_pages_survive_though_they_become_no_shorter(codec: Codec) -> None:
    data = np.random.default_rng(1).bytes(1 << 20)
    packed = Compressor().compressed(codec, memoryview(data))
    assert len(packed) >= len(data)
    assert Decompressor().page_data(codec, memoryview(packed), len(data)) == data


@given(codecs, st.binary(max_size=200), st.integers(1, 256))
@settings(max_examples=100)
def test_arbitrary_bytes_are_refused_or_come_to_the_size_that_was_asked_for(
    codec: Codec, data: bytes, pages: int
) -> None:
    try:
        made = Decompressor().page_data(codec, memoryview(data), pages * 4096)
    except BadContents:
        return
    assert len(made) == pages * 4096


@given(codecs, st.integers(0, 4095), st.data())
@settings(max_examples=60)
def test_data_that_are_cut_or_longer_are_refused(codec: Codec, seed: int, data: st.DataObject) -> None:
    pages = np.repeat(np.random.default_rng(seed).integers(0, 256, 512, dtype=np.uint8), 16).tobytes()
    packed = Compressor().compressed(codec, memoryview(pages))
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    for wrong in (cut, packed + b"\0", packed + packed):
        with pytest.raises(BadContents):
            Decompressor().page_data(codec, memoryview(wrong), len(pages))


@pytest.mark.parametrize("size", [4096, 16384])
@pytest.mark.parametrize("codec", Codec)
def test_data_of_another_size_are_refused(codec: Codec, size: int) -> None:
    packed = Compressor().compressed(codec, memoryview(bytes(8192)))
    with pytest.raises(BadContents):
        Decompressor().page_data(codec, memoryview(packed), size)


def test_a_bomb_is_refused_by_what_it_says_of_itself() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    with pytest.raises(BadContents, match="67108864"):
        Decompressor().page_data(Codec.ZSTD, memoryview(bomb), 4096)
    with pytest.raises(BadContents):
        Decompressor().page_data(Codec.LZ4, memoryview(lz4.block.compress(bytes(64 << 20), store_size=False)), 4096)


def test_a_frame_that_does_not_say_how_much_it_holds_is_refused() -> None:
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(4096))
    with pytest.raises(BadContents):
        Decompressor().page_data(Codec.ZSTD, memoryview(silent), 4096)


def test_a_window_larger_than_a_frame_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=True, force_max_window=True)
    wide = zstandard.ZstdCompressor(compression_params=parameters).compress(bytes(4096))
    with pytest.raises(BadContents):
        Decompressor().page_data(Codec.ZSTD, memoryview(wide), 1 << 20)
