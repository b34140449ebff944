"""What ended long ago is forgotten, and that is looked for once in a while."""

import pytest

from orchestrator.pruning import KEEP_SECONDS, PRUNE_SECONDS, Pruning
from vm_migration.errors import Refused


async def test_it_is_looked_for_once_a_while_however_often_it_is_asked() -> None:
    asked: list[float] = []
    pruning = Pruning(asked.append)
    times = (1000.0, 1002.0, 999.0 + PRUNE_SECONDS, 1000.0 + PRUNE_SECONDS, 1001.0 + PRUNE_SECONDS)
    for now in times:
        await pruning.at(now)
    assert asked == [1000.0 - KEEP_SECONDS, 1000.0 + PRUNE_SECONDS - KEEP_SECONDS]


async def test_a_clock_that_is_put_back_does_not_put_it_off() -> None:
    asked: list[float] = []
    pruning = Pruning(asked.append)
    for now in (90_000.0, 10.0, 20.0):
        await pruning.at(now)
    assert asked == [90_000.0 - KEEP_SECONDS, 10.0 - KEEP_SECONDS]


async def test_what_could_not_be_forgotten_is_tried_again_with_the_next_look() -> None:
    asked: list[float] = []

    def prune(before: float) -> None:
        asked.append(before)
        if len(asked) == 1:
            raise Refused("store-unusable", "The store rests")

    pruning = Pruning(prune)
    with pytest.raises(Refused):
        await pruning.at(1000.0)
    await pruning.at(1002.0)
    assert len(asked) == 2
