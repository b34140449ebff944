"""What is fuzzed: one parser of bytes that came from outside, and what must be true of it whatever the bytes are."""

import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CORPUS = Path(__file__).parent.parent / "corpus"
_ROOM = 256 << 10
"""Bytes that a parser may take beside what grows with its input: decoder, error text, a traceback."""


class Broken(Exception):
    """A parser did with some bytes what none may do."""


def nothing_mended(data: bytes) -> bytes:
    return data


@dataclass(frozen=True)
class Target:
    """A parser under test.

    `read` parses, and raises Broken where what was parsed is not what the bytes say: a canonical format writes the
    same bytes again. It may raise `refusals`, and nothing else. It may allocate `factor` bytes for each byte of its
    input, and what `declared` says that the input was told it may have.

    `mended` puts lengths and checksums of damaged bytes right, so that what lies behind them is reached too.
    """

    name: str
    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...]
    seeds: Mapping[str, bytes]
    """Inputs that the parser takes, by name; they begin the corpus."""
    mended: Callable[[bytes], bytes] = nothing_mended
    factor: int = 16
    declared: Callable[[bytes], int] = field(default=lambda _: 0)

    def feed(self, data: bytes) -> None:
        """Give bytes to the parser, as they are and mended; anything but a refusal comes out as it is."""
        for each in dict.fromkeys((data, self.mended(data))):
            try:
                self.read(each)
            except self.refusals:
                continue

    def feed_measured(self, data: bytes) -> None:
        """Give bytes to the parser, and look at what it allocates.

        Raises:
            Broken: More than it may.
        """
        for each in dict.fromkeys((data, self.mended(data))):
            allowed = _ROOM + self.factor * len(each) + self.declared(each)
            # What is made once, at first use, is not the input's: whoever takes too much for it takes it again.
            if self._peak(each) > allowed and (peak := self._peak(each)) > allowed:
                raise Broken(f"{self.name} took {peak} bytes for {len(each)} bytes of input; {allowed} are allowed")

    def _peak(self, data: bytes) -> int:
        """Return the most memory that Python's allocators had given out while an input was read."""
        tracemalloc.start()
        try:
            self.read(data)
        except self.refusals:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return peak

    @property
    def folder(self) -> Path:
        """Where its corpus lies: the seeds, what search found worth keeping, and what once broke it."""
        return CORPUS / self.name

    def corpus(self) -> tuple[bytes, ...]:
        """Return every input that is kept."""
        return tuple(path.read_bytes() for path in sorted(self.folder.iterdir()))


def same(again: bytes | bytearray | memoryview, data: bytes) -> None:
    """Hold a canonical format to its word.

    Raises:
        Broken: What was read is written in other bytes.
    """
    if bytes(again) != data:
        raise Broken(f"Read from {data[:64].hex()} and written as {bytes(again[:64]).hex()}")
