"""What outlives a driver beside attempts: every store that keeps it holds what is said here."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.store.entries import Entries, Entry
from tests.orchestrator.etcd_process import Etcd
from tests.orchestrator.stores import EtcdAt, OpenStore, SqliteAt
from vm_migration.errors import Stale


@pytest.fixture
def entries(opened: OpenStore) -> Iterator[Entries]:
    with opened() as store:
        yield store.entries


def test_an_entry_is_written_once_for_each_version_that_somebody_saw(entries: Entries) -> None:
    assert entries.get("plan/one") is None
    first = entries.put("plan/one", "a", version=0)
    assert first.version > 0
    with pytest.raises(Stale):
        entries.put("plan/one", "b", version=0)
    second = entries.put("plan/one", "b", version=first.version)
    assert second.version > first.version
    with pytest.raises(Stale):
        entries.put("plan/one", "c", version=first.version)
    assert entries.get("plan/one") == second


def test_an_entry_is_forgotten_only_as_it_was_seen(entries: Entries) -> None:
    with pytest.raises(Stale):
        entries.delete("plan/one", version=0)
    first = entries.put("plan/one", "a", version=0)
    second = entries.put("plan/one", "b", version=first.version)
    with pytest.raises(Stale):
        entries.delete("plan/one", version=first.version)
    entries.delete("plan/one", version=second.version)
    assert entries.get("plan/one") is None


def test_entries_that_are_put_together_are_all_written_or_none(entries: Entries) -> None:
    entries.put_all([Entry("host/a", "one", 0), Entry("plan/one", "a", 0)])
    first, second = entries.get("host/a"), entries.get("plan/one")
    assert first is not None
    assert second is not None
    assert (first.value, second.value) == ("one", "a")
    with pytest.raises(Stale):
        entries.put_all([Entry("host/a", "two", first.version), Entry("plan/one", "b", 0)])
    with pytest.raises(Stale):
        entries.put_all([Entry("plan/two", "b", 0), Entry("host/a", "two", 0)])
    assert entries.below("") == (first, second)
    entries.put_all([Entry("host/a", "two", first.version), Entry("plan/two", "b", 0)])
    assert [one.value for one in entries.below("")] == ["two", "a", "b"]


def test_what_another_process_wrote_is_seen_and_compared(opened: OpenStore) -> None:
    with opened() as store, opened() as other:
        assert other.entries.below("") == ()
        written = store.entries.put("host/a", "on", version=0)
        assert other.entries.below("host/") == (written,)
        with pytest.raises(Stale):
            other.entries.put("host/a", "off", version=0)
    with opened() as later:
        assert later.entries.get("host/a") == Entry("host/a", "on", written.version)


KEYS = st.text("ab/%_", max_size=4)


@pytest.mark.parametrize("kind", ["sqlite", "etcd"])
@settings(max_examples=20)
@given(keys=st.sets(KEYS, max_size=8), prefix=KEYS)
def test_a_prefix_is_a_prefix_and_no_pattern(
    tmp_path_factory: pytest.TempPathFactory, etcd: Etcd, kind: str, keys: set[str], prefix: str
) -> None:
    path = tmp_path_factory.mktemp("store") / "orchestrator.db"
    opened: OpenStore = SqliteAt(path) if kind == "sqlite" else EtcdAt(etcd.place, etcd.new_site())
    with opened() as store:
        for key in keys:
            store.entries.put(key, "value", version=0)
        found = [one.key for one in store.entries.below(prefix)]
    assert found == sorted(key for key in keys if key.startswith(prefix))
