"""Messages as text: read back whole by this version, and in words by the one before."""

import json

from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.store.message_text import message_in, text_of
from vm_migration.api.v1 import source_pb2, types_pb2

ROUNDS = st.builds(
    types_pb2.Round,
    round=st.integers(0, 2**32 - 1),
    dirty_pages=st.integers(0, 2**64 - 1),
    ms=st.floats(0, 1e9),
    wire_bytes_per_s=st.floats(allow_nan=False),
)
REPORTS = st.builds(
    source_pb2.AttemptReport,
    phase=st.sampled_from(["begun", "pre-copy", ""]),
    reason=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    percent=st.integers(0, 100),
    rounds=st.lists(ROUNDS, max_size=4),
    rounds_closed=st.integers(0, 2**32 - 1),
    wire_bytes=st.integers(0, 2**64 - 1),
    mismatched_pages=st.lists(st.integers(0, 2**64 - 1), max_size=3),
    cancel_allowed=st.booleans(),
    error=st.none() | st.builds(types_pb2.Failure, code=st.just("timeout")),
)


def worded(text: str) -> source_pb2.AttemptReport:
    """Read a text as version 0.1.0 does."""
    return json_format.Parse(text, source_pb2.AttemptReport(), ignore_unknown_fields=True)


@given(REPORTS)
def test_what_is_written_is_read_back_whole(report: source_pb2.AttemptReport) -> None:
    for whole in (True, False):
        assert message_in(text_of(report, whole=whole), source_pb2.AttemptReport()) == report


@given(REPORTS)
def test_the_version_before_reads_all_words_of_an_end_and_the_plain_ones_of_what_goes_on(
    report: source_pb2.AttemptReport,
) -> None:
    assert worded(text_of(report, whole=True)) == report
    for field in ("rounds", "mismatched_pages", "error"):
        report.ClearField(field)
    assert worded(text_of(report, whole=False)) == report


@given(REPORTS)
def test_what_the_version_before_wrote_is_read_by_its_words(report: source_pb2.AttemptReport) -> None:
    text = json_format.MessageToJson(report, preserving_proto_field_name=True, indent=None)
    assert message_in(text, source_pb2.AttemptReport()) == report


def test_what_is_expected_is_in_words_whole() -> None:
    expected = types_pb2.Expected(total_ms=12.5, rounds=3, converges=True, profile="balanced")
    text = text_of(expected, whole=False)
    assert json.loads(text)["converges"] is True
    assert json_format.Parse(text, types_pb2.Expected(), ignore_unknown_fields=True) == expected
