"""What one message of a bulk stream says; vm_migration.wire writes it as bytes.

::

    source                                   destination
      | Pages    runs, data [, digests]  ->      |   these pages hold this; the data may be compressed
      | Zeros    runs [, digested]       ->      |   these pages hold nothing but zeros
      | Digests  runs, digests           ->      |   these pages, sent before, must have these digests
      | Device   record                  ->      |   the next of the devices' state, on stream 0 only
      | Heartbeat                        ->      |   nothing; asks for an answer
      | Barrier  [cut]                   ->      |   the round's last frame on this stream
      |                            <-  Ack       |   for Barrier and Heartbeat: applied up to this sequence
      |                            <-  Ack       |   of its own accord, every second: so many frames are applied

A barrier's answer says that the devices' state sent before it is in the destination's machine, as it says that pages
are in its RAM: it is the switchover acknowledgement (semantics 7.7).

A frame's sequence counts the frames of its stream from 0, over all rounds of the attempt.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from vm_migration.transfer.page_runs import Runs, page_count
from vmm.memory.quantities import PAGE_SIZE
from vmm.vfio.device_records import DeviceRecord

DigestArray = npt.NDArray[np.uint64]
RoundArray = npt.NDArray[np.uint32]

MAX_PAYLOAD: Final = 1 << 20
"""Bytes of a frame beside its header."""
DEVICE_STREAM: Final = 0
"""The stream on which the devices' state travels: its records have one order."""
MAX_COMPRESSED_PAGES: Final = MAX_PAYLOAD // PAGE_SIZE
"""Pages of one frame whose data are compressed, so that a peer can make no more of them than of others."""
MAX_ZERO_PAGES: Final = 1 << 16
"""Pages that one Zeros frame names, so that applying it stays short."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in an attempt a frame or its answer belongs."""

    attempt: UUID
    round: int
    stream: int
    sequence: int


@dataclass(frozen=True, slots=True, eq=False)
class Pages:
    """Contents of pages, in the order of the runs; their digests when they are to be verified at once."""

    runs: Runs
    data: memoryview
    digests: DigestArray | None = None
    digest_summed: bool = False
    """The digests stand for the data in the message's checksum: who takes them compares them before he goes on."""

    @property
    def page_bytes(self) -> int:
        """How many bytes of pages it speaks of."""
        return len(self.data)


class Codec(IntEnum):
    """How page data are compressed; 0 is not at all."""

    LZ4 = 1
    """One block of LZ4."""
    ZSTD = 2
    """One frame of Zstandard, which says how long its contents are."""


@dataclass(frozen=True, slots=True, eq=False)
class CompressedPages:
    """Pages whose data are compressed, all of them together, and shorter for it; digests are of the pages.

    With `bases` the data are the pages' exclusive or with what was sent of them in those rounds, a round for each page.
    """

    runs: Runs
    codec: Codec
    data: memoryview
    digests: DigestArray | None = None
    bases: RoundArray | None = None

    @property
    def page_bytes(self) -> int:
        """How many bytes of pages it speaks of."""
        return page_count(self.runs) * PAGE_SIZE


@dataclass(frozen=True, slots=True, eq=False)
class Zeros:
    """Pages of zeros; `digested` says that the digest of a zero page is stated for each."""

    runs: Runs
    digested: bool


@dataclass(frozen=True, slots=True, eq=False)
class Digests:
    """Digests of pages whose contents the destination has, in the order of the runs."""

    runs: Runs
    digests: DigestArray


@dataclass(frozen=True, slots=True)
class Device:
    """The next record of the devices' state."""

    record: DeviceRecord


@dataclass(frozen=True, slots=True)
class Barrier:
    """The end of the round on this stream; cut, where pages that were announced come in a later round."""

    cut: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The stream is alive."""


Body = Pages | CompressedPages | Zeros | Digests | Device | Barrier | Heartbeat


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One message from source to destination."""

    place: Place
    body: Body


@dataclass(frozen=True, slots=True, eq=False)
class PagesToCome:
    """A digest-summed Pages frame whose data are still to be read: they can be read to where they belong."""

    place: Place
    runs: Runs
    digests: DigestArray


class AckKind(IntEnum):
    """What is answered; 0 means nothing, so that a zeroed message does."""

    BARRIER = 4
    HEARTBEAT = 5
    PROGRESS = 6
    """Nothing was asked: the destination lives, and its place's sequence counts the frames that are applied."""


@dataclass(frozen=True, slots=True)
class Ack:
    """One message from destination to source: all frames up to the place's sequence are applied.

    `stale_pages` counts the pages of the open round, over all streams, that have not come.
    """

    place: Place
    kind: AckKind
    stale_pages: int
