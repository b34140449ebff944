"""The page of an attempt: it stands alone, escapes what users named, and says in words and figures what it draws."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.attempt import Attempt, Event, Fault, Phase
from orchestrator.picture.charts import drawn, rates_drawing, remaining_drawing, tail_drawing
from orchestrator.picture.page import page
from orchestrator.picture.style import STYLE
from orchestrator.picture.timeline import timeline
from orchestrator.policy import MigrationPolicy
from orchestrator.render.quantities import span
from tests.orchestrator.attempts_to_draw import completed, copying, failed, refused, updated, waiting
from vm_migration.api.v1 import source_pb2, types_pb2

VOID = {"meta", "br", "hr", "link", "img", "input"}
EVENTS = [Event("a", 1, Phase.QUEUED, None, "", 1_700_000_000.0), Event("a", 2, Phase.PREFLIGHT, None, "asks", 1.7e9)]
EVERY = [waiting(), copying(), copying(count=0), copying(apart=False), completed(), failed(), refused(), updated()]


class Read(HTMLParser):
    """A page as a browser reads it: its elements with their attributes, its text; nothing is left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("attempt", EVERY, ids=lambda one: f"{one.phase}-{one.outcome}")
def test_a_page_stands_alone_and_is_named(attempt: Attempt) -> None:
    text = page(attempt, EVENTS)
    read = Read(text)
    assert text.startswith("<!doctype html>\n")
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in read.elements}
    loads = {"src", "href", "onload", "onclick", "action"}
    assert not [attributes for _, attributes in read.elements if loads & attributes.keys()]
    assert "url(" not in text
    assert "@import" not in text
    (policy,) = (one["content"] for one in read.all("meta") if one.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert read.all("html") == [{"lang": "en"}]
    assert len(read.all("h1")) == 1
    assert "qat-guest" in read.text


@pytest.mark.parametrize("attempt", EVERY, ids=lambda one: f"{one.phase}-{one.outcome}")
def test_every_drawing_has_a_title_and_a_description_and_a_table_beside_it(attempt: Attempt) -> None:
    read = Read(page(attempt, []))
    identifiers = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for one in read.all("svg"):
        assert one["role"] == "img"
        assert set(one["aria-labelledby"].split()) <= set(identifiers)
    rounds = len(attempt.report.rounds) if attempt.report else 0
    assert bool(read.all("svg")) == bool(rounds or attempt.asked.update)
    headings = [one for one in read.all("th") if one.get("scope") == "row"]
    assert len(headings) >= rounds
    assert all(one.get("scope") in {"row", "col"} for one in read.all("th"))


HOSTILE = "<script>alert('x')</script>\"&amp;"


def test_what_users_named_is_text_and_never_markup() -> None:
    attempt = replace(failed(HOSTILE), source=HOSTILE, reason=HOSTILE, error=Fault(HOSTILE, HOSTILE, HOSTILE))
    read = Read(page(attempt, [Event("a", 1, Phase.QUEUED, None, HOSTILE, 0.0)]))
    assert read.all("script") == []
    assert read.text.count(HOSTILE) >= 7


def test_a_completed_page_tells_the_parts_of_its_downtime_and_what_was_expected() -> None:
    text = Read(page(completed(), EVENTS)).text
    for words in (
        "1 pause",
        "8 ms",
        "2 last round",
        "60 ms",
        "40 %",
        "limit 300 ms",
        "expected 120 ms",
        "+25 %",
        "+8 %",
    ):
        assert words in text, words
    assert "dirtied by devices (DMA)" in text


def test_an_expectation_far_off_leaves_the_parts_of_the_downtime_readable() -> None:
    attempt = completed()
    assert attempt.expected is not None
    attempt.expected.downtime_ms = 1e6
    read = Read(page(attempt, []))
    widths = [float(one["width"]) for one in read.all("rect") if one["class"].startswith("part ")]
    assert sum(widths) > 200
    assert "\u25b8" in read.text
    assert all(float(one["cx"]) <= 960 for one in read.all("circle"))


def test_a_range_and_a_bandwidth_limit_are_drawn_where_they_are_known() -> None:
    attempt = completed()
    assert attempt.expected is not None
    assert "nine of ten" not in Read(page(attempt, [])).text
    attempt.expected.downtime_low_ms, attempt.expected.downtime_high_ms = 60.0, 9000.0
    told = Read(page(replace(attempt, policy=MigrationPolicy(max_bandwidth_bytes_per_s=100 << 20)), [])).text
    for words in ("expected 120 ms, 60 ms to 9.0 s in nine of ten", "60 ms to 9.0 s", "bandwidth limit", "100 MiB/s"):
        assert words in told, words


def test_a_limit_far_above_all_rates_is_told_and_does_not_flatten_them() -> None:
    report = copying().report
    assert report is not None
    line = timeline(report)
    most = max(one.wire_rate for one in line.stretches)
    near, far = rates_drawing(line, 1.9 * most), rates_drawing(line, 2.1 * most, tuned=True)
    assert near.lines[-1].label == "bandwidth limit"
    assert 1.0 * most < near.marks[-1] <= 1.9 * most
    assert "bandwidth limit" not in {each.label for each in far.lines}
    assert "The limit in the end is" in far.description
    assert far.marks == rates_drawing(line).marks


def test_what_remains_of_a_round_under_way_is_not_what_the_one_before_left() -> None:
    """A round that is nearly over would look as if the rounds converged."""
    attempt = copying(count=2)
    assert attempt.report is not None
    last = attempt.report.rounds[-1]
    left = round(last.dirty_bytes_per_s * last.ms / 1000)
    attempt.report.remaining_bytes = 4096
    assert timeline(attempt.report).left_bytes == pytest.approx(left, abs=1)
    attempt.report.remaining_bytes = 2 * left  # pages that were held back count, too
    assert timeline(attempt.report).left_bytes == 2 * left
    attempt.report.remaining_bytes, attempt.report.outcome = 0, "completed"
    assert timeline(attempt.report).left_bytes == 0


def test_an_open_page_has_no_column_of_outcomes_and_no_verification() -> None:
    texts = {name: Read(page(attempt, [])).text for name, attempt in (("open", copying()), ("ended", completed()))}
    for words in ("off by", "differ, by"):
        assert words in texts["ended"], words
        assert words not in texts["open"], words


def test_a_prediction_says_what_it_rests_on_and_that_its_limits_were_tuned() -> None:
    attempt = completed()
    assert "rests on" not in Read(page(attempt, [])).text  # of a source of 0.1.0
    assert attempt.expected is not None
    assert attempt.report is not None
    attempt.expected.total_low_ms, attempt.expected.total_high_ms = 3000, 5000
    attempt.expected.link_bytes_per_s, attempt.expected.dirty_bytes_per_s = 100 << 20, 60 << 20
    told = Read(page(attempt, [])).text
    assert "It rests on 100 MiB/s on the wire, and on 60.0 MiB/s dirtied." in told
    assert "may never fit the limit" in told
    attempt.expected.converges = True
    assert "may never fit the limit" not in Read(page(attempt, [])).text
    attempt.report.downtime_limit_ms = 900
    assert "The limits were tuned since." in Read(page(attempt, [])).text


def test_what_comes_after_a_large_first_round_has_a_scale_of_its_own() -> None:
    tail = "Memory left to send, from the second round on"
    assert tail in Read(page(copying(count=6), [])).text
    assert tail not in Read(page(copying(count=3), [])).text
    stalled = copying(count=6)
    assert stalled.report is not None
    stalled.report.rounds[4].dirty_pages = stalled.report.rounds[0].dirty_pages // 2
    assert tail not in Read(page(stalled, [])).text


def test_a_failed_page_tells_why_and_what_to_do_and_shows_no_downtime() -> None:
    text = Read(page(failed(), [])).text
    for words in (
        "timeout:",
        "Migration did not converge in 600000 ms",
        "To do: Raise the limits",
        "rate-assumed (qat0)",
    ):
        assert words in text, words
    assert "last round" not in text


def test_a_page_without_rounds_says_so() -> None:
    text = Read(page(refused(), [])).text
    assert "No round had ended." in text
    assert "no-p2p (qat0)" in text


def test_throttling_is_drawn_where_there_was_some() -> None:
    assert "vCPU throttling" in Read(page(copying(throttle=40), [])).text
    assert "vCPU throttling" not in Read(page(copying(), [])).text


def test_the_holding_of_devices_is_drawn_apart_where_there_was_some() -> None:
    attempt = copying()
    assert attempt.report is not None
    for told in attempt.report.rounds[2:]:
        told.device_throttle_percent = 30
    text = Read(page(attempt, [])).text
    assert "Device throttling" in text
    assert "At most 30 % of the devices' time was taken from them" in text
    assert "vCPU throttling" not in text
    assert "Device throttling" not in Read(page(copying(), [])).text


def test_how_pages_travelled_is_told_where_they_did_not_go_as_they_are() -> None:
    plain = copying()
    assert plain.report is not None
    before = Read(page(plain, [])).text
    plain.report.rounds[1].delta_pages, plain.report.rounds[2].held_back_pages = 4711, 815
    plain.report.transport, plain.report.compression, plain.report.raw_bytes = "direct", "zstd", 3 << 30
    plain.report.bases_looked_up, plain.report.bases_found = 400, 300
    after = Read(page(plain, [])).text
    for words in (
        "as deltas",
        "4711",
        "pages sent at most",
        "held back",
        "815",
        "over direct, 3.0 GiB of pages were sent, compression zstd in the end",
        "deltas had a base for 75 % of 400 pages",
    ):
        assert words in after, words
        assert words not in before, words
    assert "as references" not in after


def test_a_page_says_how_many_of_many_rounds_it_shows() -> None:
    attempt = copying(count=7)
    assert attempt.report is not None
    attempt.report.rounds_closed = 5000
    assert "Of 5000 rounds, 7 are shown" in Read(page(attempt, [])).text


SPANS = st.floats(0.0, 1e6) | st.just(float("inf"))


@given(st.lists(st.tuples(SPANS, st.integers(0, 1 << 30), st.booleans()), min_size=1, max_size=12))
def test_rounds_lie_one_after_the_other_whatever_an_agent_tells(told: list[tuple[float, int, bool]]) -> None:
    ended = 0.0
    report = source_pb2.AttemptReport()
    for number, (ms, pages, timed) in enumerate(told):
        ended += ms
        report.rounds.append(
            types_pb2.Round(
                round=number,
                ms=ms,
                dirty_pages=pages,
                cpu_dirtied_pages=pages,
                wire_bytes_per_s=pages * 4096 * 1000 / ms if ms else float("nan"),
                ended_ms=ended if timed else 0.0,
            )
        )
    line = timeline(report)
    places = [place for one in line.stretches for place in (one.begins_ms, one.ends_ms)]
    assert places == sorted(places)
    for drawing in (remaining_drawing(line), rates_drawing(line), tail_drawing(line) or rates_drawing(line, 5.0)):
        points = drawn(drawing, line).iter("polyline")
        for x, y in (pair.split(",") for one in points for pair in one.attrib["points"].split()):
            assert 0 <= float(x) <= 960
            assert 0 <= float(y) <= 262


def test_rounds_of_an_agent_that_tells_no_times_lie_where_others_do() -> None:
    old, new = (timeline(attempt.report or source_pb2.AttemptReport()) for attempt in (copying(apart=False), copying()))
    ends = [[one.ends_ms for one in line.stretches] for line in (old, new)]
    assert ends[0] == pytest.approx(ends[1])
    assert (old.apart, new.apart) == (False, True)


def test_a_span_that_nobody_knows_has_a_word() -> None:
    assert span(float("inf")) == "unknown"


def test_whole_minutes_have_no_seconds() -> None:
    assert [span(ms) for ms in (60_000, 61_000, 600_000)] == ["1 m", "1 m 1 s", "10 m"]
    assert re.search("expected downtime", Read(page(_unmeasured(), [])).text)


def _unmeasured() -> Attempt:
    attempt = copying(count=1)
    assert attempt.report is not None
    attempt.report.expected_downtime_ms = float("inf")
    return attempt


@pytest.mark.parametrize(
    ("mode", "parts"),
    [
        ("transfer", ["handing over", "ready", "release", "resume"]),
        ("exec", ["program"]),
        ("reboot", ["leaving", "ready", "release", "resume"]),
    ],
)
def test_the_page_of_an_update_tells_of_no_memory_that_was_sent_and_no_limit(mode: str, parts: list[str]) -> None:
    read = Read(page(updated(mode=mode), EVENTS))
    shown = [words for words in read.words if STYLE not in words]
    assert "Update of qat-guest" in read.text
    assert f"on host-a, mode {mode}" in read.text
    for of_a_migration in ("host-a to host-a", "on the wire", "verif", "limit", "allowed", "transport", "round"):
        assert of_a_migration not in " ".join(shown), of_a_migration
    told = [text for text in read.words if text.split(" ", 1)[0].isdigit()]
    assert [text.split(" ", 1)[1] for text in told if " " in text and text.split(" ", 1)[1] in parts] == parts
    assert "1234 jobs done, 0 errors" in read.text
