"""No damaged, reordered, replayed or oversized frame is taken, none ends the intake, and what is due still is.

The long run of 100,000 is `python -m benchmarks --only damaged-frames`; this is a share of it.
"""

from pathlib import Path
from random import Random
from uuid import UUID

import pytest

from tests.damaged_frames.damage import Damage, damaged, on_a_byte_stream
from tests.damaged_frames.guest import Guest
from tests.damaged_frames.over_connections import TRANSPORTS, over_connections
from tests.damaged_frames.trying import Tally, at_the_intake, intake, kinds_of
from tests.dest_agent.arrivals import A
from vm_migration.wire.bitmap_codec import encode_bitmap

AT_THE_INTAKE = 1880
OVER_EACH = 40
SEED = 20261121


def require_refused(tally: Tally, count: int) -> None:
    assert (tally.accepted, tally.crashed) == ([], [])
    assert tally.tried.total() >= count
    assert set(tally.tried) == set(Damage)
    assert tally.right > 0


async def test_damaged_frames_are_refused_by_the_intake_and_the_right_ones_between_them_taken(tmp_path: Path) -> None:
    require_refused(await at_the_intake(tmp_path, AT_THE_INTAKE, SEED), AT_THE_INTAKE)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_damaged_frames_are_refused_over_connections(tmp_path: Path, transport: str) -> None:
    require_refused(await over_connections(tmp_path, transport, OVER_EACH, SEED), OVER_EACH)


async def test_what_is_taken_though_it_was_not_damaged_is_told(tmp_path: Path) -> None:
    """The count of what was accepted wrongly is not 0 because nothing could be counted."""
    guest = Guest(UUID(A), SEED)
    with intake(tmp_path) as (taking, image):
        announced, messages = guest.next_round()
        taking.arrival.open_round(0, encode_bitmap(announced))
        for way, due in zip(taking.ways, messages, strict=False):
            taking.try_damaged(way, Damage.FLIPPED, due, due)
        del image
        assert len(taking.tally.accepted) == 2 * len(taking.ways)  # each was taken, and counts as taken
        assert taking.tally.crashed == []


@pytest.mark.parametrize("kind", Damage)
def test_damage_is_never_what_was_due(kind: Damage) -> None:
    random = Random(SEED)  # noqa: S311 - chance that can be repeated
    _, messages = Guest(UUID(A), SEED).next_round()
    for _ in range(300):
        due = random.randrange(1, len(messages) - 1)
        came = damaged(kind, messages, due, random)
        assert came != messages[due]
        assert not on_a_byte_stream(came, messages[due]).startswith(messages[due])


def test_nothing_comes_before_the_first_or_after_the_last() -> None:
    messages = [b"first", b"second", b"last"]
    assert Damage.REPLAYED not in kinds_of(messages, 0)
    assert Damage.REORDERED not in kinds_of(messages, 2)
    assert set(kinds_of(messages, 1)) == set(Damage)
