"""What a rehearsed guest's memory is made of: text out of a seed, so that every run on every host has the same bytes.

Words come from a small vocabulary by a skewed draw, which makes them compress about as text does. RAM is touched here
and there only: most of it stays a hole, some pages are written with zeros, the rest hold text.
"""

import functools
import hashlib
from typing import Final

import numpy as np

from vmm.assembly.memory_image import MemorySource
from vmm.guest.material import Material
from vmm.guest.pseudorandom import Words, fractions, mixed, mixed_one
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock

_VOCABULARY: Final = 2048
_WORDS: Final = 160_000
_LETTERS: Final = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz", dtype=np.uint8)
_TEXT_PAGES: Final = 512
_ZERO_PAGES: Final = 64


@functools.lru_cache(maxsize=4)
def seeded_material(seed: int) -> Material:
    """Return about a mebibyte of text for the guest's corpus; the same seed gives the same bytes."""
    text, code = _text(2 * seed), _text(2 * seed + 1)
    digest = hashlib.sha256(code)
    digest.update(text)
    return Material(code, text, (f"lab-seed-{seed}",), digest.hexdigest())


def touch(block: RamBlock, material: Material, seed: int) -> MemorySource:
    """Write text, and zeros, to a few pages all over a fresh block, before its guest boots."""
    count = min(_TEXT_PAGES + _ZERO_PAGES, block.pages)
    places = mixed(np.arange(count, dtype=np.uint64) + np.uint64(mixed_one(seed) >> 1)) % np.uint64(block.pages)
    for index, page in enumerate(np.unique(places).tolist()):
        start = page * PAGE_SIZE
        source = index * PAGE_SIZE % (len(material.text) - PAGE_SIZE)
        text = material.text[source : source + PAGE_SIZE] if index % 9 else bytes(PAGE_SIZE)
        block.data[start : start + PAGE_SIZE] = text
    return MemorySource("mixture", material.files, material.sha256)


def _text(seed: int) -> bytes:
    vocabulary = [_word(number) for number in range(_VOCABULARY)]
    drawn = fractions(np.arange(_WORDS, dtype=np.uint64) + np.uint64(mixed_one(seed) >> 1))
    ranks = (np.exp(drawn * np.log(_VOCABULARY)) - 1.0).astype(np.int64)
    return b" ".join(vocabulary[rank] for rank in ranks.tolist())


def _word(number: int) -> bytes:
    letters: Words = mixed(np.arange(8, dtype=np.uint64) + np.uint64(number * 8))
    length = 2 + number.bit_length() % 8
    return _LETTERS[(letters[:length] % np.uint64(len(_LETTERS))).astype(np.int64)].tobytes()
