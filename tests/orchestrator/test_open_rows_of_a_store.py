"""The open attempts as one process sees them that looks again and again, while others write."""

import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.attempt import Outcome, Phase
from orchestrator.store.etcd.client import EtcdClient
from orchestrator.store.etcd.open_rows import _Seen, _Written
from orchestrator.store.etcd.store import EtcdStore
from orchestrator.store.store import OpenRow, Store
from tests.orchestrator.etcd_process import START_SECONDS, Etcd, running_etcd
from tests.orchestrator.stores import OpenStore, new
from vm_migration.api.etcd import rpc_pb2 as api
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.errors import MigrationError, Refused

MACHINES = 4
STEPS = 60
Step = Callable[[Store, str, float], object]


def enter(store: Store, attempt: str, now: float) -> None:
    store.open_attempt(new(f"{attempt}-{now:g}", machine=attempt, driver="cli-1", heartbeat=now))


def _open(store: Store, machine: str) -> str:
    row = store.open_attempt_of(machine)
    return "nothing" if row is None else row.attempt


def cancel(store: Store, machine: str, _now: float) -> None:
    store.request_cancel(_open(store, machine))


def tune(store: Store, machine: str, now: float) -> None:
    store.request_bandwidth(_open(store, machine), int(now))


def claim(store: Store, machine: str, now: float) -> None:
    store.claim(_open(store, machine), f"cli-{now:g}", now)


def renew(store: Store, machine: str, now: float) -> None:
    store.renew([store.get(_open(store, machine))], now)


def refuse(store: Store, machine: str, now: float) -> None:
    store.save(store.get(_open(store, machine)).to(Phase.REFUSED, Outcome.REFUSED), now)


def forget(store: Store, _machine: str, now: float) -> None:
    for driver in {row.driver for row in store.attempts(everything=True)}:
        if pending := store.pending(driver, 1000):
            store.acknowledge(driver, pending[-1].number)
    store.prune(now)


def by_attempt(rows: Sequence[OpenRow]) -> list[OpenRow]:
    return sorted(rows, key=lambda row: row.attempt)


@pytest.mark.parametrize("seed", range(3))
def test_who_looks_again_and_again_sees_what_who_looks_for_the_first_time_sees(opened: OpenStore, seed: int) -> None:
    drawn = random.Random(seed)  # noqa: S311 - a schedule, not a secret
    steps: list[Step] = [enter, enter, cancel, tune, claim, renew, refuse, forget]
    with opened() as looking, opened() as other:
        for number in range(STEPS):
            step, writer = drawn.choice(steps), drawn.choice((looking, other))
            with suppress(MigrationError):  # it is open already, held, or not there
                step(writer, f"m{drawn.randrange(MACHINES)}", 100.0 + 20 * number)
            if drawn.random() < 0.7:  # not after each: several changes are found at one look
                with opened() as fresh:
                    assert by_attempt(looking.open_rows()) == by_attempt(fresh.open_rows())
        assert looking.open_rows()


class Overheard:
    """What an etcd answers, in bytes, by call."""

    def __init__(self, client: EtcdClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[int] = []
        commit, ranges = client.commit, client.range

        def committed(request: api.TxnRequest) -> api.TxnResponse:
            answer = commit(request)
            self.answers.append(answer.ByteSize())
            return answer

        def ranged(request: api.RangeRequest) -> api.RangeResponse:
            answer = ranges(request)
            self.answers.append(answer.ByteSize())
            return answer

        monkeypatch.setattr(client, "commit", committed)
        monkeypatch.setattr(client, "range", ranged)

    def taken(self) -> list[int]:
        answers, self.answers = self.answers, []
        return answers


def test_what_nobody_wrote_is_not_read_again(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    report = source_pb2.AttemptReport(rounds=[types_pb2.Round(round=n, wire_bytes=1 << 40) for n in range(300)])
    site = etcd.new_site()
    with EtcdStore(etcd.place, site) as looking, EtcdStore(etcd.place, site) as other:
        rows = [other.open_attempt(new(f"attempt-{n}", machine=f"m{n}", report=report)) for n in range(60)]
        overheard = Overheard(looking.client, monkeypatch)
        assert len(looking.open_rows()) == len(rows)
        whole = sum(overheard.taken())
        assert len(looking.open_rows()) == len(rows)
        idle = overheard.taken()
        assert (len(idle), sum(idle) < 100) == (1, True), "one question, and no row in its answer"
        other.request_cancel("attempt-7")
        assert [row.attempt for row in looking.open_rows() if row.cancel_requested] == ["attempt-7"]
        assert sum(overheard.taken()) < whole / 10


def test_an_etcd_of_another_past_counts_as_one_that_was_never_seen() -> None:
    row = OpenRow("a", "host-a", "host-b", Phase.QUEUED, None, "cli-1", 1, 100.0, False, new().asked)
    seen = _Seen(7, 3, 50, {"a": _Written(row, 40)})
    assert seen.until(api.ResponseHeader(cluster_id=7, raft_term=3, revision=51)) == seen.rows
    assert seen.until(api.ResponseHeader(cluster_id=7, raft_term=3, revision=49)) == {}
    assert seen.until(api.ResponseHeader(cluster_id=7, raft_term=2, revision=51)) == {}
    assert seen.until(api.ResponseHeader(cluster_id=8, raft_term=3, revision=51)) == {}
    assert replace(seen, rows={}).until(api.ResponseHeader(cluster_id=7, raft_term=3, revision=50)) == {}


def test_an_etcd_that_was_put_back_and_written_to_since_is_told_of_as_it_stands(tmp_path: Path) -> None:
    with running_etcd(tmp_path, fsync=False) as etcd:
        (member,) = etcd.members
        kept, lost = tmp_path / "kept", tmp_path / member.name
        with EtcdStore(etcd.place, "site") as other:
            attempt = other.open_attempt(new()).attempt
        member.kill()
        shutil.copytree(lost, kept)
        etcd.start()
        with EtcdStore(etcd.place, "site") as looking:
            looking.request_cancel(attempt)
            assert [row.cancel_requested for row in looking.open_rows()] == [True]
            member.kill()
            with pytest.raises(Refused):
                looking.open_rows()
            shutil.rmtree(lost)
            shutil.copytree(kept, lost)
            etcd.start()  # in the term that it was in
            with EtcdStore(etcd.place, "site") as other:
                for number in range(4):  # its revision passes what was seen before
                    other.open_attempt(new(f"later-{number}", machine=f"later-{number}"))
            seen = {row.attempt: row.cancel_requested for row in rises_again(looking)}
            assert (len(seen), seen[attempt]) == (5, False)


def rises_again(store: EtcdStore) -> tuple[OpenRow, ...]:
    """Return the open attempts once a store that rests, as its etcd was gone, asks it again."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            return store.open_rows()
        except Refused:
            assert time.monotonic() < until, "it rests for ever"
            time.sleep(0.05)  # a rest ends by the clock
