"""What QEMU's words mean, what it is told before a stream, and what is kept of it on disk."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vm_migration.machine.qemu.hosts import MACHINE, specification
from vm_migration.machine.qemu.answers import Migration, Status
from vm_migration.machine.qemu.command_line import Order, command_line
from vm_migration.machine.qemu.fence_file import FENCE_FILE, FenceFile, Kept
from vm_migration.machine.qemu.run_states import stands_still, trouble
from vm_migration.machine.qemu.streaming import capabilities, parameters, state_of, under_way
from vmm.process.own_stream import StreamTerms

OFFERED = frozenset(
    {
        "xbzrle", "auto-converge", "compress", "events", "postcopy-ram", "return-path", "pause-before-switchover",
        "multifd", "late-block-activate", "validate-uuid", "background-snapshot",
    }
)  # fmt: skip
TERMS = st.builds(
    StreamTerms,
    max_bandwidth=st.integers(0, 1 << 40),
    downtime_limit_ms=st.integers(1, 1 << 40),
    channels=st.integers(1, 16),
    most_throttle=st.sampled_from([0, 50, 90]),
)


@given(st.sampled_from(["paused", "postmigrate", "prelaunch"]) | st.text())
def test_who_says_that_it_runs_is_never_taken_to_stand_still(word: str) -> None:
    assert not stands_still(Status(word, running=True))


@pytest.mark.parametrize(
    ("word", "still"),
    [("paused", True), ("postmigrate", True), ("inmigrate", True), ("suspended", False), ("of-tomorrow", False)],
)
def test_a_guest_in_its_own_sleep_wakes_up_by_itself(word: str, still: bool) -> None:
    assert stands_still(Status(word, running=False)) is still


def test_only_what_nobody_asked_for_is_trouble() -> None:
    for word in ("io-error", "internal-error", "guest-panicked", "shutdown", "suspended", "watchdog"):
        assert trouble(Status(word, running=False)) is not None
    assert trouble(Status("paused", running=False)) is None


@given(TERMS, st.sets(st.sampled_from(sorted(OFFERED))), st.booleans(), st.booleans())
def test_a_source_always_stops_at_its_gate_and_is_asked_for_nothing_that_it_does_not_know(
    terms: StreamTerms,
    offered: set[str],
    incoming: bool,
    same_uuid: bool,
) -> None:
    set_to = {
        str(one["capability"]): one["state"]
        for one in capabilities(terms, offered, incoming=incoming, same_uuid=same_uuid)
    }
    assert set(set_to) <= offered
    if "pause-before-switchover" in offered:
        assert set_to.get("pause-before-switchover") is (None if incoming else True)
    for never in ("postcopy-ram", "xbzrle", "compress", "background-snapshot"):
        assert set_to.get(never) in (None, False)
    if "multifd" in offered:
        assert set_to["multifd"] is (terms.channels > 1)


@given(TERMS)
def test_a_limit_that_qemu_would_refuse_is_the_most_that_it_takes(terms: StreamTerms) -> None:
    told = parameters(terms, incoming=False)
    assert isinstance(told["downtime-limit"], int)
    assert told["downtime-limit"] <= 2_000_000
    assert told["max-bandwidth"] == (terms.max_bandwidth or 1 << 40)
    assert set(parameters(terms, incoming=True)) <= {"multifd-channels"}


@given(TERMS)
def test_vcpus_are_throttled_as_far_as_is_said_and_not_at_all_where_nothing_is(terms: StreamTerms) -> None:
    told = parameters(terms, incoming=False)
    (converge,) = (
        one["state"]
        for one in capabilities(terms, OFFERED, incoming=False, same_uuid=True)
        if one["capability"] == "auto-converge"
    )
    assert converge is (terms.most_throttle > 0)
    assert told.get("max-cpu-throttle", 0) == terms.most_throttle


def test_a_migration_that_never_was_is_none() -> None:
    never = msgspec.convert({}, Migration)
    assert not under_way(never)
    seen = state_of(never, Status("running", running=True), running=True, pause=0, moments={})
    assert (seen.status, seen.total, seen.stopped_ns) == ("none", 0, 0)


KEPT = st.builds(
    Kept,
    st.integers(0, 1 << 60),
    st.integers(0, 1 << 60),
    st.integers(-1, 1 << 60),
    st.integers(0, 99),
    st.booleans(),
    st.integers(0, 99),
)


@given(st.lists(KEPT, min_size=1, max_size=3))
def test_what_was_kept_last_is_read(tmp_path_factory: pytest.TempPathFactory, all_kept: list[Kept]) -> None:
    file = FenceFile(tmp_path_factory.mktemp("fence"))
    assert file.read() is None
    for kept in all_kept:
        file.write(kept)
        assert file.read() == kept


def test_a_fence_that_is_damaged_is_no_fence(tmp_path: Path) -> None:
    for damage in (b"", b"{", b"[]", json.dumps({"epoch": "one"}).encode(), b"\xff"):
        (tmp_path / FENCE_FILE).write_bytes(damage)
        with pytest.raises(ValueError, match="damaged"):
            FenceFile(tmp_path).read()


def test_a_comma_in_a_name_ends_no_option(tmp_path: Path) -> None:
    disk = {"name": "root", "file": "/srv/a,b.img", "shared": True}
    made = specification(table={"disk": [disk]})
    assert made.qemu is not None
    order = Order("/usr/bin/qemu", tmp_path, MACHINE, made, made.qemu, incoming=True, adopts=None)
    words = command_line(order, 7)
    assert any("filename=/srv/a,,b.img,locking=on" in word for word in words)
    assert words[-2:] == ("-incoming", "defer")
    assert "-S" in words
    assert any(",share=on,prealloc=on,prealloc-threads=" in word for word in words)
