"""Streams of changes are bounded for each identity, and free their place when they end."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from orchestrator import watchers
from orchestrator.admission import Order
from orchestrator.api import OrchestratorService
from orchestrator.driving import driving
from orchestrator.leading import Leading
from orchestrator.surroundings import Surroundings
from orchestrator.watchers import Watchers
from tests.orchestrator.fake_agents import FakeSite
from vm_migration.api.v1 import orchestrator_pb2 as api
from vm_migration.errors import Refused
from vm_migration.link.identity import Identity, Role

ANNE, BERT = (Identity("home", Role.VIEWER, name) for name in ("anne", "bert"))


@pytest.fixture
async def service(around: Surroundings) -> AsyncIterator[OrchestratorService]:
    async with driving(replace(around, driver="orchestrator")) as at_work:
        yield OrchestratorService(Leading(at_work), around.store)


def test_nobody_watches_more_than_the_bound_and_nobody_else_hears_of_it() -> None:
    places = Watchers()
    with contextlib.ExitStack() as stack:
        for _ in range(watchers.MOST):
            stack.enter_context(places.place(ANNE))
        with pytest.raises(Refused, match=r"viaduct://home/viewer/anne watches 64") as refusal, places.place(ANNE):
            raise AssertionError
        assert refusal.value.code == "too-many-watches"
        with places.place(BERT), places.place(None):
            pass
    with places.place(ANNE):
        pass


async def test_a_stream_has_a_place_while_it_is_open(
    site: FakeSite, service: OrchestratorService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers, "MOST", 1)
    site.world.add("guest", "host-a")
    site.world.script.hold_at = "pre-copy"
    row = await service._queue.submit(Order("guest", "host-b"))
    asked = api.AttemptName(attempt=row.attempt)
    async with contextlib.aclosing(service.WatchAttempt(asked, None)) as first:
        await anext(first)
        with pytest.raises(Refused, match="watches 1"):
            await anext(service.WatchAttempt(asked, None))
        with pytest.raises(Refused, match="watches 1"):
            await anext(service.WatchEvacuation(api.EvacuationName(evacuation="ev-"), None))
    async with contextlib.aclosing(service.WatchAttempt(asked, None)) as second:
        await anext(second)
    site.world.script.go.set()
