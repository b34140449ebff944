"""Which job comes when: everything about a job follows from the seed and its number.

So a driver that arrives on another host needs no list of the jobs in flight to check their answers. Jobs come in
slabs of 32, each with an output buffer of 64 KiB in one slab of 2 MiB. A slab draws on four compressed chunks and
one plain one; every sixteenth job compresses the plain one, the others decompress.
"""

from dataclasses import dataclass
from typing import Final

from vfio_host.interface.qat import Operation
from vmm.guest.corpus import Corpus
from vmm.guest.pseudorandom import mixed_one

JOBS_PER_SLAB: Final = 32
OUTPUT_BYTES: Final = 64 << 10
_STREAMS_PER_SLAB: Final = 4
_COMPRESS_EVERY: Final = 16


@dataclass(frozen=True, slots=True)
class Job:
    """One job: what it does, which of its slab's inputs it reads, and the cookie that its answer must carry."""

    number: int
    operation: Operation
    source: int
    cookie: int

    @property
    def slab(self) -> int:
        """Which slab, counted from the beginning of time."""
        return self.number // JOBS_PER_SLAB

    @property
    def output_offset(self) -> int:
        """Where in its slab the output goes."""
        return self.number % JOBS_PER_SLAB * OUTPUT_BYTES


def job(number: int, seed: int) -> Job:
    """Return a job."""
    compress = number % _COMPRESS_EVERY == _COMPRESS_EVERY - 1
    source = _STREAMS_PER_SLAB if compress else number % _STREAMS_PER_SLAB
    operation = Operation.COMPRESS if compress else Operation.DECOMPRESS
    return Job(number, operation, source, mixed_one(mixed_one(seed) ^ number))


def inputs(slab: int, seed: int) -> tuple[int, ...]:
    """Return the chunks that a slab's jobs read: four numbers of streams, then one of a plain chunk."""
    draw = mixed_one(mixed_one(seed) + slab)
    streams = tuple((draw >> 8 * n) % Corpus.streams for n in range(_STREAMS_PER_SLAB))
    return (*streams, (draw >> 40) % Corpus.plain)
