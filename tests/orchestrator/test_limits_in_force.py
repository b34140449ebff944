"""The limits that count are those in force: a report tells them, and that they are not what was asked for at first."""

from dataclasses import replace

import pytest
from rich.console import Console

from orchestrator.attempt import Attempt
from orchestrator.limits import Limits, limits_of
from orchestrator.picture.page import page
from orchestrator.policy import MigrationPolicy
from orchestrator.render.progress import plain_line
from orchestrator.render.summary import show_result
from orchestrator.result import migration_document
from tests.orchestrator.attempts_to_draw import completed, copying, waiting

MIB = 1 << 20


def under(attempt: Attempt, downtime_ms: int = 0, bandwidth: int = 0, *, asked_bandwidth: int = 0) -> Attempt:
    """Return an attempt whose source tells these limits; 0 is what one of 0.1.0 tells."""
    assert attempt.report is not None
    attempt.report.downtime_limit_ms, attempt.report.max_bandwidth_bytes_per_s = downtime_ms, bandwidth
    return replace(attempt, policy=MigrationPolicy(max_bandwidth_bytes_per_s=asked_bandwidth))


def said(attempt: Attempt) -> str:
    console = Console(width=200, no_color=True)
    with console.capture() as captured:
        show_result(console, attempt)
    return captured.get()


@pytest.mark.parametrize(
    ("attempt", "limits"),
    [
        (waiting(), Limits(300, 0, tuned=False)),
        (under(copying()), Limits(300, 0, tuned=False)),
        (under(copying(), asked_bandwidth=MIB), Limits(300, MIB, tuned=False)),
        (under(copying(), 300, MIB, asked_bandwidth=MIB), Limits(300, MIB, tuned=False)),
        (under(copying(), 500), Limits(500, 0, tuned=True)),
        (under(copying(), 300, 2 * MIB, asked_bandwidth=MIB), Limits(300, 2 * MIB, tuned=True)),
        (under(copying(), 300, MIB), Limits(300, MIB, tuned=True)),
    ],
)
def test_limits_in_force_are_the_source_s_word_and_else_what_was_asked_for(attempt: Attempt, limits: Limits) -> None:
    assert limits_of(attempt) == limits
    told = migration_document(attempt).limits
    assert told.downtime_limit_ms == limits.downtime_ms
    assert (told.max_bandwidth_bytes_per_s or 0, told.tuned) == (limits.bandwidth_bytes_per_s, limits.tuned)


def test_a_tuned_attempt_shows_what_is_in_force_and_what_was_asked_for() -> None:
    tuned = under(completed(), 500, 2 * MIB, asked_bandwidth=MIB)
    words = ("500 ms, tuned; at first 300 ms", "2.0 MiB/s, tuned; at first 1.0 MiB/s")
    for text in (said(tuned), page(tuned, [])):
        assert all(each in text for each in words)
    drawn = page(tuned, [])
    assert "limit in the end" in drawn
    assert "of at most 500 ms" in drawn
    assert "limit 500 ms" in drawn
    assert "limit 500 ms" in plain_line(under(copying(), 500))


def test_an_attempt_that_was_not_tuned_shows_its_limits_once() -> None:
    plain = under(completed(), 300, MIB, asked_bandwidth=MIB)
    assert "limits" in said(plain)
    assert "tuned" not in said(plain) + page(plain, [])
    assert "limit in the end" not in page(plain, [])
