"""How etcd is spoken to: members in turn, TLS, and what is said of one that does not answer."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.attempt import Attempt
from orchestrator.store.etcd import client as etcd_client
from orchestrator.store.etcd import transaction
from orchestrator.store.etcd.client import REST_SECONDS, EtcdClient, Member
from orchestrator.store.etcd.store import EtcdStore
from orchestrator.store.etcd.transaction import Transaction, transact, values
from tests.orchestrator.etcd_process import Etcd, free_address, running_etcd
from tests.orchestrator.stores import new
from vm_migration.api.etcd import rpc_pb2 as api
from vm_migration.daemon.etcd_place import EtcdPlace, EtcdTls
from vm_migration.errors import InvalidInput, Refused
from vm_migration.link.changed_files import AGAIN
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue, renew


class Clock:
    """Seconds that a test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def client(etcd: Etcd) -> Iterator[EtcdClient]:
    with contextlib.closing(EtcdClient(etcd.place)) as made:
        yield made


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[Etcd]:
    with running_etcd(tmp_path, fsync=False) as running:
        yield running


def test_a_member_that_is_away_is_passed_over_for_the_next(etcd: Etcd) -> None:
    place = EtcdPlace((free_address(), *etcd.place.addresses))
    with EtcdStore(place, etcd.new_site()) as store:
        assert store.open_attempt(new()) == store.get(new().attempt)


def test_who_cannot_reach_etcd_says_why_and_lets_it_rest_before_the_next_try() -> None:
    clock, address = Clock(), free_address()
    with contextlib.closing(EtcdClient(EtcdPlace((address,)), clock=clock)) as client:
        for now in (0.0, REST_SECONDS / 2, 2 * REST_SECONDS):
            clock.now = now
            with pytest.raises(Refused, match=address) as refusal:
                client.range(api.RangeRequest(key=b"/"))
            assert refusal.value.code == "store-unusable"


def test_a_member_that_is_frozen_keeps_a_call_waiting_no_longer_than_its_deadline(own_etcd: Etcd) -> None:
    clock = Clock()
    with contextlib.closing(EtcdClient(own_etcd.place, deadline=1.0, clock=clock)) as client:
        client.range(api.RangeRequest(key=b"/"))
        with own_etcd.frozen(), pytest.raises(Refused, match="no answer within 1 s"):
            client.range(api.RangeRequest(key=b"/"))
        clock.now = 2 * REST_SECONDS
        own_etcd.answers()
        client.range(api.RangeRequest(key=b"/"))


def test_a_store_is_not_opened_where_nobody_answers_nor_where_a_newer_version_wrote(etcd: Etcd) -> None:
    with pytest.raises(Refused) as refusal:
        EtcdStore(EtcdPlace((free_address(),)), "site")
    assert refusal.value.code == "store-unusable"
    site = etcd.new_site()
    with EtcdStore(etcd.place, site) as store:
        transact(store.client, lambda made: made.put(store.keys.version, b"2"))
        with pytest.raises(Refused, match="newer") as refusal:
            EtcdStore(etcd.place, site)
        assert refusal.value.code == "store-version"


def test_a_decision_that_met_another_s_write_is_made_again(client: EtcdClient, etcd: Etcd) -> None:
    key = f"/{etcd.new_site()}".encode()
    seen: list[bytes | None] = []

    def decide(made: Transaction) -> bytes | None:
        found = made.get(key)
        if not seen:
            transact(client, lambda other: other.put(key, b"theirs"))
        seen.append(found)
        made.put(key, b"ours")
        return found

    assert transact(client, decide) == b"theirs"
    assert seen == [None, b"theirs"]
    assert values(client, [key, key + b"-not-there"]) == [b"ours"]


def test_who_meets_another_s_write_every_time_gives_up(
    client: EtcdClient, etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "TRIES", 3)
    key = f"/{etcd.new_site()}".encode()
    tries: list[int] = []

    def decide(made: Transaction) -> None:
        made.get(key)
        transact(client, lambda other: other.put(key, str(len(tries)).encode()))
        tries.append(1)
        made.put(key, b"ours")

    with pytest.raises(Refused, match="in between"):
        transact(client, decide)
    assert len(tries) == 3


def test_keys_are_read_in_pages_as_they_stood_at_one_moment(
    client: EtcdClient, etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.store.etcd.client.PAGE", 3)
    prefix = f"/{etcd.new_site()}/".encode()
    written = Transaction(client)
    for number in range(8):
        written.put(prefix + str(number).encode(), b"old")
    assert written.commit()
    reading = client.below(prefix)
    first = next(reading)
    transact(client, lambda made: made.put(prefix + b"7", b"new"))
    found = [first, *reading]
    assert [one.key.removeprefix(prefix) for one in found] == [str(number).encode() for number in range(8)]
    assert {one.value for one in found} == {b"old"}
    assert len(list(client.below(prefix, limit=4))) == 4


def test_a_claim_whose_answer_was_lost_is_the_claim_of_who_made_it(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    with EtcdStore(etcd.place, etcd.new_site()) as store:
        row = store.open_attempt(new())
        commit = Transaction.commit
        lost: list[int] = []

        def commit_and_lose(made: Transaction) -> int:
            revision = commit(made)
            if not lost:
                lost.append(revision)
                return 0  # what a member is told that is asked again, after the one before had done it
            return revision

        monkeypatch.setattr(Transaction, "commit", commit_and_lose)
        claimed: Attempt = store.claim(row.attempt, "cli-2", 1000.0)
        assert (claimed.driver, claimed.term, len(lost)) == ("cli-2", 2, 1)
        assert store.get(row.attempt) == claimed


def test_etcd_over_tls_is_known_by_its_authority_and_its_name_and_certificates_may_be_replaced(tmp_path: Path) -> None:
    create_authority(tmp_path / "pki", "home")
    files = issue(tmp_path / "pki", Identity("home", Role.HOST, "etcd-1"))
    mine = issue(tmp_path / "pki", Identity("home", Role.ORCHESTRATOR, "main"))
    create_authority(tmp_path / "other", "home")
    foreign = issue(tmp_path / "other", Identity("home", Role.ORCHESTRATOR, "main"))
    stranger = EtcdTls(mine.ca, foreign.certificate, foreign.key, "etcd-1")
    with running_etcd(tmp_path, tls=files, fsync=False) as etcd:
        tls = EtcdTls(mine.ca, mine.certificate, mine.key, "etcd-1")
        with EtcdStore(EtcdPlace(etcd.place.addresses, tls), "home") as store:
            assert store.attempts() == ()
        for wrong in (EtcdTls(mine.ca, mine.certificate, mine.key, "another"), EtcdTls(mine.ca, name="etcd-1")):
            with pytest.raises(Refused) as refusal:
                EtcdStore(EtcdPlace(etcd.place.addresses, wrong), "home")
            assert refusal.value.code == "store-unusable"
        clock = Clock()
        with contextlib.closing(EtcdClient(EtcdPlace(etcd.place.addresses, stranger), clock=clock)) as client:
            with pytest.raises(Refused):
                client.range(api.RangeRequest(key=b"/"))
            for ours, theirs in ((mine.certificate, stranger.certificate), (mine.key, stranger.key)):
                assert theirs is not None
                theirs.write_bytes(ours.read_bytes())
            clock.now = 2 * REST_SECONDS
            with pytest.raises(Refused):
                client.range(api.RangeRequest(key=b"/"))
            clock.now = 4 * REST_SECONDS
            assert not client.range(api.RangeRequest(key=b"/none")).kvs
        mine.key.chmod(0o644)
        with pytest.raises(InvalidInput, match="Others can read"):
            EtcdStore(EtcdPlace(etcd.place.addresses, tls), "home")


def test_a_renewed_certificate_that_could_not_be_used_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_authority(tmp_path / "pki", "home")
    mine = issue(tmp_path / "pki", Identity("home", Role.ORCHESTRATOR, "main"))
    clock, place = Clock(), EtcdPlace((free_address(),), EtcdTls(mine.ca, mine.certificate, mine.key, "etcd-1"))
    really, fails = etcd_client._opened, True

    def opened(place: EtcdPlace) -> tuple[Member, ...]:
        if fails:
            raise InvalidInput("tls-file", "It cannot be read: Too many open files", "")
        return really(place)

    with contextlib.closing(EtcdClient(place, clock=clock)) as client:
        first = client._members
        monkeypatch.setattr(etcd_client, "_opened", opened)
        renew(tmp_path / "pki", "main")
        for now, uses in ((0.0, False), (AGAIN / 2, False), (AGAIN, True)):
            clock.now = now
            with pytest.raises(Refused):
                client.range(api.RangeRequest(key=b"/"))
            assert (client._members is not first) == uses
            fails = False
