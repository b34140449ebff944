"""An orchestrator daemon that is killed at any phase, and started again: it goes on with what was in flight."""

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.agents import Agents
from orchestrator.attempt import Attempt
from orchestrator.store.sqlite import SqliteStore
from tests.system.attempts import DEADLINE, ENDLESS, PATIENT, in_the_middle, machine, specification, works
from tests.system.command import finished, running, viaduct
from tests.system.gates import Gate
from tests.system.orchestrated import Orchestrator, orchestrated, prepared_orchestrator
from tests.system.site import Site
from tests.vm_migration.daemon.mqtt_brokers import Mosquitto, Received, free_port
from vm_migration.errors import Stale

pytestmark = pytest.mark.timeout(300)  # many processes start in each of them


@pytest.fixture(scope="module")
def shared_site(gate: Gate) -> Iterator[Site]:
    """A site whose migrations can be held at a hook."""
    with tempfile.TemporaryDirectory(prefix="viaduct-") as name:
        hooks = gate.hooks("before_prepare", "before_ready")
        site = Site(Path(name), {"host-a": "256MiB", "host-b": "256MiB"}, hooks=hooks)
        with contextlib.closing(site):
            yield site


async def row(orchestrator: Orchestrator, *, term: int) -> Attempt:
    """Return the only attempt of the store, once it is driven in a term, or has ended in it."""
    async with asyncio.timeout(DEADLINE):
        while True:
            with SqliteStore(orchestrator.store) as store:
                (found,) = store.attempts(everything=True)
            if found.term >= term:
                return found
            await asyncio.sleep(0.02)  # another process writes it


async def test_a_killed_orchestrator_goes_on_with_the_next_term_and_its_command_does_not_notice(
    site: Site, agents: Agents
) -> None:
    async with machine(site, agents, specification("driven")) as created:
        uuid = created.machine
        with orchestrated(site) as orchestrator:
            config = orchestrator.operator
            async with running(site, "migrate", "driven", "--to", "host-b", *ENDLESS, "--json", config=config) as asked:
                await in_the_middle(agents, "host-a", uuid)
                orchestrator.daemon.kill()
                key = (await row(orchestrator, term=1)).key()
                await works(site, "host-a", uuid)
                orchestrator.daemon.start()
                taken = await row(orchestrator, term=2)
                assert (taken.driver, taken.term) == ("orchestrator", 2)
                said = await viaduct(
                    site, "tune", taken.attempt, "--downtime-limit", "4s", "--max-bandwidth", "1GiB/s", config=config
                )
                assert said.exit_code == 0, said.err
                with pytest.raises(Stale) as refusal:
                    await agents.cancel("host-a", key)
                assert refusal.value.code == "stale-term"
                moved = await finished(asked)
            assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
            shown = await viaduct(site, "show", taken.attempt, "--events", "--json", config=config)
            events = shown.document["events"]
            assert isinstance(events, list)
            assert [one["sequence"] for one in events] == list(range(1, len(events) + 1))
        await works(site, "host-b", uuid)


async def test_an_orchestrator_killed_while_it_prepares_leaves_nothing_and_the_machine_moves_later(
    site: Site, agents: Agents, gate: Gate
) -> None:
    async with machine(site, agents, specification("prepared")) as created:
        uuid = created.machine
        with orchestrated(site) as orchestrator, gate.armed("before_prepare"):
            config = orchestrator.operator
            detached = await viaduct(
                site, "migrate", "prepared", "--to", "host-b", *PATIENT, "--detach", "--json", config=config
            )
            assert detached.exit_code == 0, detached.err
            await gate.reached()
            orchestrator.daemon.kill()
            assert site.states("host-a", uuid)[-1] == "OUTGOING"
            gate.open()
            orchestrator.daemon.start()
            attempt = str(detached.document["attempt"])
            ended = await viaduct(site, "watch", attempt, "--json", config=config)
            assert (ended.exit_code, ended.document["outcome"]) == (4, "failed"), ended.err
            error = ended.document["error"]
            assert isinstance(error, dict)
            assert error["code"] == "driver-gone"
            assert site.states("host-a", uuid)[-1] == "ABORTED"
            assert site.machines_at("host-b") == []
            await works(site, "host-a", uuid)
            again = ("migrate", "prepared", "--to", "host-b", *PATIENT, "--json")
            async with running(site, *again, config=config) as second:
                await gate.reached()
                gate.open()
                moved = await finished(second)
            assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
            await works(site, "host-b", uuid)


async def test_an_orchestrator_killed_while_the_guest_stands_still_finds_it_moved(
    site: Site, agents: Agents, gate: Gate
) -> None:
    async with machine(site, agents, specification("verified")) as created:
        with orchestrated(site) as orchestrator, gate.armed("before_ready"):
            config = orchestrator.operator
            asked = ("migrate", "verified", "--to", "host-b", "--downtime-limit", "5s", "--json")
            async with running(site, *asked, config=config) as command:
                await gate.reached()
                orchestrator.daemon.kill()
                gate.open()
                await works(site, "host-b", created.machine)
                orchestrator.daemon.start()
                moved = await finished(command)
            assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
            assert (await row(orchestrator, term=2)).term == 2


async def test_what_waits_in_the_queue_survives_the_orchestrator(site: Site, agents: Agents) -> None:
    async with (
        machine(site, agents, specification("ahead")) as ahead,
        machine(site, agents, specification("behind")) as behind,
    ):
        with orchestrated(site) as orchestrator:
            config, attempts = orchestrator.operator, []
            for name, limits in (("ahead", ENDLESS), ("behind", PATIENT)):
                words = ("migrate", name, "--to", "host-b", *limits, "--detach", "--json")
                taken = await viaduct(site, *words, config=config)
                assert taken.exit_code == 0, taken.err
                attempts.append(str(taken.document["attempt"]))
            await in_the_middle(agents, "host-a", ahead.machine)
            orchestrator.daemon.kill()
            orchestrator.daemon.start()
            waiting = await viaduct(site, "show", attempts[1], "--json", config=config)
            shown = waiting.document["attempt"]
            assert isinstance(shown, dict)
            assert (shown["phase"], shown["driver"]) == ("queued", "orchestrator")
            assert (await viaduct(site, "cancel", attempts[0], config=config)).exit_code == 0
            moved = await viaduct(site, "watch", attempts[1], "--json", config=config)
            assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
        await works(site, "host-a", ahead.machine)
        await works(site, "host-b", behind.machine)


async def test_what_neither_orchestrator_nor_broker_lived_through_is_told_without_a_gap(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path, port=free_port())
    with tempfile.TemporaryDirectory(prefix="viaduct-") as name:
        site = Site(Path(name), {"host-a": "256MiB", "host-b": "256MiB"}, f"mqtt://127.0.0.1:{broker.port}")
        with contextlib.closing(site), prepared_orchestrator(site) as orchestrator:
            site.run("host-a", "host-b")
            async with site.agents() as agents, machine(site, agents, specification("told")) as created:
                await broker.start()
                async with broker.running.reader() as before:
                    orchestrator.daemon.start()
                    words = ("migrate", "told", "--to", "host-b", *ENDLESS, "--detach", "--json")
                    asked = await viaduct(site, *words, config=orchestrator.operator)
                    assert asked.exit_code == 0, asked.err
                    await before.until(lambda seen: any(one.document["phase"] == "pre-copy" for one in events(seen)))
                assert broker.process is not None
                broker.process.kill()
                await broker.process.communicate()
                orchestrator.daemon.kill()
                attempt = str(asked.document["attempt"])
                forced = await viaduct(site, "force", attempt, config=orchestrator.alone)
                assert forced.exit_code == 0, forced.err
                await works(site, "host-b", created.machine)
                await broker.start()
                async with broker.running.reader() as after:
                    orchestrator.daemon.start()
                    await after.until(lambda seen: any(one.document["outcome"] for one in events(seen)))
                    (owner,) = await after.until_topic("machine/told/owner")
                told = {one.document["sequence"]: one.document["phase"] for one in events(before.messages)}
                told |= {one.document["sequence"]: one.document["phase"] for one in events(after.messages)}
                with SqliteStore(orchestrator.store) as store:
                    written = {one.sequence: one.phase.value for one in store.events(attempt)}
                assert told == written
                assert sorted(written) == list(range(1, len(written) + 1))
                assert (owner.document["host"], owner.document["epoch"]) == ("host-b", 2)
                await broker.stop()


def events(messages: list[Received]) -> list[Received]:
    return [one for one in messages if one.topic.endswith("/event")]


async def test_a_second_orchestrator_over_the_same_store_is_refused(site: Site) -> None:
    with orchestrated(site) as orchestrator:
        words = ("orchestrator", "--listen", "127.0.0.1:0")
        second = await viaduct(site, *words, config=orchestrator.daemon.folder / "orchestrator.toml")
        assert second.exit_code == 3
        assert str(orchestrator.daemon.pid) in second.err
        assert "Use that one, or stop it first" in second.err
