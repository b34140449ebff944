"""Who leads of several orchestrators, with a real etcd; and how those are found who do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc.aio
import pytest

from orchestrator.admission import Order
from orchestrator.api import NAME, OrchestratorService
from orchestrator.attempt import Outcome
from orchestrator.client import PEER, RemoteDesk
from orchestrator.doors import STANDING_BY, Doors
from orchestrator.driving import driving
from orchestrator.leading import Leading
from orchestrator.service import AttemptQueue
from orchestrator.store.etcd.client import EtcdClient
from orchestrator.store.etcd.leadership import RENEW_SECONDS, Leadership, leader
from orchestrator.store.etcd.rows import Keys
from orchestrator.store.etcd.transaction import Transaction
from orchestrator.store.store import STORE_UNUSABLE
from orchestrator.surroundings import Surroundings, ignore
from tests.orchestrator.etcd_process import Etcd, free_address, running_etcd
from tests.orchestrator.fake_agents import FakeSite
from vm_migration.api.etcd import rpc_pb2 as api
from vm_migration.api.v1.orchestrator_pb2_grpc import add_OrchestratorServicer_to_server
from vm_migration.errors import Refused, Unreachable
from vm_migration.link.channel import open_channel
from vm_migration.link.server import AgentServer, Service

DEADLINE = 20.0


@pytest.fixture
def key(etcd: Etcd) -> bytes:
    return Keys(etcd.new_site()).leader


@contextlib.contextmanager
def candidate(etcd: Etcd, key: bytes, name: str) -> Iterator[Leadership]:
    with contextlib.closing(Leadership(etcd.place, key, name)) as made:
        yield made


def take_away(client: EtcdClient, key: bytes) -> None:
    transaction = Transaction(client)
    transaction.delete(key)
    assert transaction.commit()


def test_one_leads_and_the_others_know_who(etcd: Etcd, key: bytes) -> None:
    with candidate(etcd, key, "first") as first, candidate(etcd, key, "second") as second:
        assert first.campaign()
        assert not second.campaign()
        assert second.leader == "first"
        assert first.campaign()  # an answer that was lost is asked for again
        assert first.renewed()
        with contextlib.closing(EtcdClient(etcd.place)) as client:
            assert leader(client, key) == "first"


def test_who_resigns_leaves_its_place_at_once(etcd: Etcd, key: bytes) -> None:
    with candidate(etcd, key, "first") as first, candidate(etcd, key, "second") as second:
        assert first.campaign()
        first.resign()
        assert second.campaign()
        assert not first.campaign()


async def test_who_is_silent_loses_its_place_and_hears_of_it(etcd: Etcd, key: bytes) -> None:
    with candidate(etcd, key, "first") as first, candidate(etcd, key, "second") as second:
        assert first.campaign()
        async with asyncio.timeout(DEADLINE):
            await second.won()
            await first.lost()
        assert not first.campaign()
        assert first.leader == "second"


async def test_who_leads_stands_down_when_its_key_is_gone_though_its_lease_lives(etcd: Etcd, key: bytes) -> None:
    with candidate(etcd, key, "first") as first, candidate(etcd, key, "second") as second:
        assert first.campaign()
        with contextlib.closing(EtcdClient(etcd.place)) as client:
            take_away(client, key)
        assert second.campaign()
        async with asyncio.timeout(DEADLINE):
            await first.lost()
        await first.resigned()
        assert second.renewed()


def test_nobody_leads_by_a_lease_that_it_does_not_keep_alive(
    etcd: Etcd, key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, held_back = EtcdClient.commit, list[api.TxnRequest]()

    def late(client: EtcdClient, request: api.TxnRequest) -> api.TxnResponse:
        """Let the first write arrive only with the second, which then finds the key there."""
        held_back.append(request)
        if len(held_back) == 1:
            raise Refused(STORE_UNUSABLE, "no answer came in time", "")
        return [commit(client, one) for one in held_back][-1]

    with candidate(etcd, key, "first") as first:
        monkeypatch.setattr(EtcdClient, "commit", late)
        monkeypatch.setattr("orchestrator.store.etcd.leadership.LEASE_SECONDS", 60)  # longer than any busy moment
        with pytest.raises(Refused):
            first.campaign()
        assert not first.campaign()
        monkeypatch.undo()
        assert not first.campaign()
        assert not first.renewed()


def test_a_life_before_is_another_s(etcd: Etcd, key: bytes) -> None:
    with candidate(etcd, key, "first") as first, candidate(etcd, key, "first") as later:
        assert first.campaign()
        assert not later.campaign()


async def test_who_leads_goes_on_while_etcd_rests(tmp_path: Path) -> None:
    with running_etcd(tmp_path, fsync=False) as etcd, candidate(etcd, b"/leader", "first") as first:
        assert first.campaign()
        with etcd.frozen():
            with pytest.raises(Refused):
                first.renewed()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2 * RENEW_SECONDS):
                    await first.lost()


def test_who_stands_by_says_who_leads() -> None:
    with pytest.raises(Unreachable, match="orchestrator-a-7000 leads") as refusal:
        _ = Leading(leader=lambda: "orchestrator-a-7000").queue
    assert refusal.value.code == STANDING_BY


@contextlib.asynccontextmanager
async def served(leading: Leading, around: Surroundings) -> AsyncIterator[tuple[str, grpc.aio.Channel]]:
    register = partial(add_OrchestratorServicer_to_server, OrchestratorService(leading, around.store))
    async with AgentServer("127.0.0.1:0", None, [Service(NAME, register)], grace=0.0) as server:
        channel = open_channel(server.address, None, PEER)
        yield server.address, channel
        await channel.close()


def doors_of(*channels: tuple[str, grpc.aio.Channel]) -> Doors:
    known = dict(channels)
    return Doors(tuple(known), known.__getitem__)


@pytest.fixture
async def doors(around: Surroundings) -> AsyncIterator[Doors]:
    """One door at which nobody answers, one at which somebody stands by, and that of who leads."""
    closed = open_channel(free_address(), None, PEER)
    async with (
        driving(replace(around, driver="orchestrator")) as at_work,
        served(Leading(leader=lambda: "the other"), around) as standing_by,
        served(Leading(at_work), around) as leads,
    ):
        yield doors_of(("closed", closed), standing_by, leads)
        await closed.close()


async def test_commands_find_who_leads(site: FakeSite, doors: Doors) -> None:
    site.world.add("guest", "host-a")
    ended = await RemoteDesk(doors).migrate(Order("guest", "host-b"), ignore)
    assert ended.outcome == Outcome.COMPLETED


async def test_who_does_not_answer_beside_one_that_leads_is_known(doors: Doors) -> None:
    assert await doors.silent() == ("closed",)


async def test_what_an_orchestrator_says_of_its_hosts_is_its_answer(site: FakeSite, doors: Doors) -> None:
    site.world.add("guest", "host-a")
    desk = RemoteDesk(doors)
    await desk.attempts(everything=True)
    found = doors.peer
    await site.stop("host-a")
    with pytest.raises(Refused) as refusal:
        await desk.submit(Order("guest", "host-b"))
    assert refusal.value.code != STANDING_BY
    assert doors.peer == found


class CutOff(Leading):
    """What leads still, as far as it knows, and cannot reach the store."""

    @property
    def queue(self) -> AttemptQueue:
        raise Refused(STORE_UNUSABLE, "The store rests", "Wait")


async def test_a_leader_that_is_cut_off_from_the_store_is_passed_for_the_one_that_leads_now(
    site: FakeSite, around: Surroundings
) -> None:
    site.world.add("guest", "host-a")
    async with (
        driving(replace(around, driver="orchestrator")) as at_work,
        served(CutOff(), around) as cut_off,
        served(Leading(at_work), around) as leads,
    ):
        attempt = await RemoteDesk(doors_of(cut_off, leads)).submit(Order("guest", "host-b"))
        seen = [one async for one in RemoteDesk(doors_of(cut_off, leads)).watch(attempt)]
    assert "The store rests" in seen[0].reason
    assert seen[-1].outcome == Outcome.COMPLETED


async def test_where_one_cannot_reach_the_store_and_no_other_leads_the_store_is_what_is_told(
    around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.doors.TAKEOVER_SECONDS", 0.2)
    async with served(CutOff(), around) as cut_off, served(Leading(), around) as standing_by:
        for doors in (doors_of(cut_off, standing_by), doors_of(standing_by, cut_off), doors_of(cut_off)):
            with pytest.raises(Refused, match="The store rests") as refusal:
                await RemoteDesk(doors).attempts(everything=False)
            assert refusal.value.code == STORE_UNUSABLE


async def test_who_alone_is_asked_and_stands_by_says_so_at_once(around: Surroundings) -> None:
    async with served(Leading(leader=lambda: "the other"), around) as door:
        with pytest.raises(Unreachable, match="the other leads"):
            await RemoteDesk(doors_of(door)).attempts(everything=False)


async def test_where_nobody_leads_for_long_what_each_said_is_told(
    around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.doors.TAKEOVER_SECONDS", 0.2)
    async with served(Leading(), around) as first, served(Leading(), around) as second:
        with pytest.raises(Unreachable, match=r"nobody leads.*nobody leads") as refusal:
            await RemoteDesk(doors_of(first, second)).attempts(everything=False)
        assert refusal.value.code == "nobody-leads"


async def test_a_door_behind_which_everything_stands_still_is_passed_long_before_a_call_s_deadline(
    around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.doors._PROBE_SECONDS", 0.1)
    accepted = asyncio.Event()

    async def stand_still(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        with contextlib.closing(writer):
            await asyncio.Event().wait()

    async with (
        await asyncio.start_server(stand_still, "127.0.0.1") as frozen,
        driving(replace(around, driver="orchestrator")) as at_work,
        served(Leading(at_work), around) as leads,
    ):
        port = frozen.sockets[0].getsockname()[1]
        channel = open_channel(f"127.0.0.1:{port}", None, PEER)
        async with asyncio.timeout(DEADLINE / 4):
            found = await RemoteDesk(doors_of(("frozen", channel), leads)).attempts(everything=True)
        assert found.attempts == ()
        assert accepted.is_set()
        await channel.close()
