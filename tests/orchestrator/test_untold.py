"""A driver without a broker keeps nothing for one: what ended may be forgotten."""

import time
from dataclasses import replace

import pytest

from orchestrator.attempt import Outcome, Phase
from orchestrator.status import publishing
from orchestrator.store.store import Store
from orchestrator.untold import forget
from tests.orchestrator.stores import OpenStore, new
from vm_migration.errors import Refused


def ended(store: Store, attempt: str, driver: str) -> None:
    row = store.open_attempt(replace(new(attempt, machine=attempt), driver=driver))
    store.save(row.to(Phase.REFUSED, Outcome.REFUSED), 101.0)


async def test_what_ended_without_a_broker_is_pruned(opened: OpenStore) -> None:
    with opened() as store:
        async with publishing(store, "cli-host-1", "home", None, time.time):
            ended(store, "1" * 8, "cli-host-1")
            assert store.prune(200.0) in (0, 1)
        assert store.pending("cli-host-1", 10) == ()
        store.prune(200.0)
        assert store.attempts(everything=True) == ()


async def test_a_daemon_forgets_what_those_left_that_are_gone_and_a_command_does_not(opened: OpenStore) -> None:
    with opened() as store:
        ended(store, "1" * 8, "cli-gone-1")
        async with publishing(store, "cli-host-1", "home", None, time.time):
            pass
        assert len(store.pending("cli-gone-1", 10)) > 0
        async with publishing(store, "orchestrator", "home", None, time.time):
            pass
        assert store.pending("cli-gone-1", 10) == store.pending("orchestrator", 10) == ()


async def test_a_store_that_rests_is_left_as_it_is(opened: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def rests(*_: object) -> None:
        raise Refused("store-unusable", "It rests")

    with opened() as store:
        ended(store, "1" * 8, "cli-host-1")
        with monkeypatch.context() as patched:
            patched.setattr(store, "acknowledge", rests)
            await forget(store, "cli-host-1")
        assert len(store.pending("cli-host-1", 10)) > 0
