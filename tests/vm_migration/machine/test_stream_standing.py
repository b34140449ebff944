"""Only what says both that everything was sent and that the guest stands still is an end that may be released."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from vm_migration.machine.stream_standing import Standing, at_destination, at_source

STATUSES = (
    "none", "setup", "cancelling", "cancelled", "active", "postcopy-active", "postcopy-paused", "postcopy-recover",
    "completed", "failed", "failing", "colo", "pre-switchover", "device", "wait-unplug",
)  # fmt: skip
RUN_STATES = (
    "debug", "inmigrate", "internal-error", "io-error", "paused", "postmigrate", "prelaunch", "finish-migrate",
    "restore-vm", "running", "save-vm", "shutdown", "suspended", "watchdog", "guest-panicked", "colo",
)  # fmt: skip
WORDS = st.text(max_size=12)


def test_a_source_has_sent_only_where_it_completed_and_stands_at_postmigrate_past_its_gate() -> None:
    found = {
        (status, run_status, past)
        for status, run_status, past in product(STATUSES, RUN_STATES, (False, True))
        if at_source(status, run_status, past_gate=past) is Standing.SENT
    }
    assert found == {("completed", "postmigrate", True)}


def test_a_destination_is_whole_only_where_it_completed_and_is_paused() -> None:
    found = {
        (status, run_status)
        for status, run_status in product(STATUSES, RUN_STATES)
        if at_destination(status, run_status) is Standing.WHOLE
    }
    assert found == {("completed", "paused")}


def test_a_source_that_came_past_its_gate_untold_has_failed() -> None:
    for status, run_status in product(("device", "completed", "failed", "cancelled", "postcopy-active"), RUN_STATES):
        assert at_source(status, run_status, past_gate=False) is Standing.FAILED


def test_a_source_whose_guest_runs_past_the_gate_has_failed() -> None:
    for status in STATUSES:
        assert at_source(status, "running", past_gate=True) is Standing.FAILED
        assert at_destination(status, "running") is Standing.FAILED


@given(WORDS, WORDS, st.booleans())
def test_of_words_that_nobody_knows_nothing_is_concluded(status: str, run_status: str, past: bool) -> None:
    if status not in STATUSES:
        assert at_source(status, run_status, past_gate=past) is Standing.FAILED
        assert at_destination(status, run_status) is Standing.FAILED
    if run_status not in RUN_STATES:
        assert at_source(status, run_status, past_gate=True) is Standing.FAILED
        assert at_destination(status, run_status) is Standing.FAILED
