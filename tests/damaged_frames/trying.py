"""Damaged frames tried against a destination's own intake, and what came of them.

Nothing but the frame that is due may be taken: what is refused with an error of its own, and moves nothing, is right.
"""

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Protocol
from uuid import UUID

import numpy as np
import psutil

from dest_agent.direct_frames import take_frames
from dest_agent.incoming_attempt import IncomingAttempt
from tests.damaged_frames.damage import Damage, damaged, on_a_byte_stream
from tests.damaged_frames.guest import PAGES, Guest
from tests.dest_agent.arrivals import A, arriving
from tests.fakes.far_end import TICKET
from tests.fakes.written_wire import WrittenWire
from vm_migration.errors import MigrationError
from vm_migration.handover.states import State
from vm_migration.transfer.digests import PageWords
from vm_migration.wire.bitmap_codec import encode_bitmap
from vm_migration.wire.frame import MAX_FRAME
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.ram_block import RamBlock

REFUSED: Final = "bad-frame"
_AT_EACH_FRAME: Final = 12
"""Damaged ones before the right one comes."""
_WARM: Final = 10
"""After a tenth of them everything that is made once has been made."""


@dataclass
class Tally:
    """What was tried, and what must not be: with the seed and the place, so that it can be looked at."""

    tried: Counter[Damage] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    right: int = 0
    """Whole frames that were taken between them."""
    grown: int = 0
    """Bytes of memory that the process had more at the end than after the first tenth."""
    _warm: int = 0

    def note_memory(self, of: int) -> None:
        """Look at this process's memory, once a tenth of so many was tried; whatever comes later must not add to it."""
        if self.tried.total() >= of // _WARM:
            gc.collect()
            now = int(psutil.Process().memory_info().rss)
            self._warm = self._warm or now
            self.grown = now - self._warm

    def add(self, other: "Tally") -> None:
        """Count what was tried elsewhere too."""
        self.tried += other.tried
        self.accepted += other.accepted
        self.crashed += other.crashed
        self.right += other.right
        self.grown = max(self.grown, other.grown)


def kinds_of(messages: Sequence[bytes], due: int) -> list[Damage]:
    """Return what damage there can be of the message that is due."""
    last = due == len(messages) - 1
    none = {Damage.REPLAYED} if due == 0 else {Damage.REORDERED} if last else set()
    return [kind for kind in Damage if kind not in none]


class Intake:
    """One arrival with one stream, which takes messages as gRPC brings them, or as bytes of a direct stream."""

    def __init__(self, arrival: IncomingAttempt, tally: Tally) -> None:
        self.arrival: Final = arrival
        self.tally: Final = tally
        self._room: Final = memoryview(bytearray(MAX_FRAME))

    @property
    def ways(self) -> tuple["Way", ...]:
        return (self.as_message, self.as_bytes)

    def as_message(self, came: bytes, due: bytes) -> None:
        del due
        self.arrival.apply(came, 0)

    def as_bytes(self, came: bytes, due: bytes) -> None:
        written = came if came is due else on_a_byte_stream(came, due)
        take_frames(WrittenWire(written), self.arrival, 0, self._room)

    def take(self, way: "Way", due: bytes) -> None:
        """Take a frame that is due."""
        way(due, due)
        self.tally.right += 1

    def try_damaged(self, way: "Way", kind: Damage, came: bytes, due: bytes) -> None:
        """Bring what is not due, and note what came of it."""
        self.tally.tried[kind] += 1
        place = self.arrival.progress(0).place
        what = f"{kind} instead of frame {place.sequence} of round {place.round}, {way.__name__}: {came[:64].hex()}"
        try:
            way(came, due)
        except MigrationError as error:
            if error.code != REFUSED:
                self.tally.crashed.append(f"{what}: {error!r}")
        except ConnectionResetError:
            pass  # it said more than came
        except Exception as error:  # noqa: BLE001 - whatever else a frame leads to is a crash, and is told
            self.tally.crashed.append(f"{what}: {error!r}")
        else:
            self.tally.accepted.append(what)
        if self.arrival.progress(0).place.sequence != place.sequence:
            self.tally.accepted.append(f"{what}: it counts as taken")


class Way(Protocol):
    """How bytes come to an intake; `due` is the message that would be right."""

    __name__: str

    def __call__(self, came: bytes, due: bytes) -> None: ...


@contextmanager
def intake(folder: Path) -> Iterator[tuple[Intake, PageWords]]:
    """Have an arrival of which no round is open, and its RAM."""
    with arriving(folder, State.PREPARED) as held:
        ram = RamBlock.create("viaduct-ram-damaged", PAGES * PAGE_SIZE)
        image = ram.words
        arrival = IncomingAttempt(held.custody, ram, "host-a", TICKET, streams=1, full=False)
        yield Intake(arrival, Tally()), image
        del image
        arrival.let_go_of_ram()


async def at_the_intake(folder: Path, count: int, seed: int) -> Tally:
    """Try so many against one arrival, with every frame that is due between them; RAM is right after each round.

    Raises:
        MigrationError: A frame that was due was not taken.
        AssertionError: RAM is not what its source has.
    """
    random, guest = Random(seed), Guest(UUID(A), seed)  # noqa: S311 - chance that can be repeated
    before: list[bytes] = []
    with intake(folder) as (taking, image):
        while taking.tally.tried.total() < count:
            announced, fresh = guest.next_round()
            taking.arrival.open_round(guest.round, encode_bitmap(announced))
            messages = before + fresh
            for due in range(len(before), len(messages)):
                for _ in range(_AT_EACH_FRAME):
                    kind = random.choice(kinds_of(messages, due))
                    came = damaged(kind, messages, due, random)
                    taking.try_damaged(random.choice(taking.ways), kind, came, messages[due])
                taking.take(random.choice(taking.ways), messages[due])
            assert taking.arrival.stale_pages == 0
            assert np.array_equal(image, guest.pages)
            before = fresh[-_AT_EACH_FRAME:]
            taking.tally.note_memory(count)
        del image
    return taking.tally
