"""What `viaduct watch` draws: within 80 columns, without colours, and line by line where nothing can be drawn."""

import io
import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from orchestrator.attempt import Attempt, Phase
from orchestrator.render.progress import LiveProgress, Picture, PlainLines
from orchestrator.render.sparkline import BLOCKS, PLAIN, sparkline
from orchestrator.render.summary import show_result
from orchestrator.status import progress_publication
from tests.orchestrator.attempts_to_draw import completed, copying, waiting
from vm_migration.daemon.status_topics import Topics


def shown(attempt: Attempt, *, encoding: str = "utf-8", width: int = 80) -> str:
    """Return what a terminal without colours shows."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=file, width=width, force_terminal=True, no_color=True, legacy_windows=False)
    console.print(Picture(attempt))
    file.flush()
    return Text.from_ansi(raw.getvalue().decode(encoding)).plain


def test_a_picture_tells_rates_apart_the_devices_and_the_downtime_against_its_limit() -> None:
    text = shown(copying(throttle=30))
    for words in (
        *("pre-copy", "5 rounds", "to go", "wire", "dirtied", ": CPU ", ", DMA "),
        *("8.0 KiB moved, 4.0 KiB left", "30 % of the vCPUs' time", "142 ms expected, within the limit of 300 ms"),
        "4.0 s in all",
    ):
        assert words in text, words
    slow = copying()
    assert slow.report is not None
    slow.report.expected_downtime_ms = 301.0
    assert "301 ms expected, over the limit of 300 ms" in shown(slow)
    assert "of the devices' time" not in shown(slow)
    slow.report.rounds[-1].device_throttle_percent = 40
    assert "40 % of the devices' time" in shown(slow)


@pytest.mark.parametrize("attempt", [waiting(), copying(), copying(throttle=99), completed(count=40)])
def test_a_picture_fits_into_80_columns(attempt: Attempt) -> None:
    lines = shown(attempt).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert not any("…" in line for line in lines)
    assert len(lines) <= 12


def test_a_picture_uses_plain_characters_where_a_terminal_has_no_others() -> None:
    text = shown(copying(), encoding="ascii")
    assert set(PLAIN) & set(next(line for line in text.splitlines() if line.startswith("wire")))
    assert text.isascii()


@given(st.lists(st.floats(-10.0, 1e12), max_size=100), st.integers(0, 40))
@example([1e-308, -1.0], 2)
def test_bars_are_as_high_as_their_values(values: list[float], width: int) -> None:
    last = values[-width:] if width else []
    heights = [BLOCKS.index(bar) for bar in sparkline(values, width)]
    assert len(heights) == len(last)
    for (value, height), (other, above) in zip(
        zip(last, heights, strict=True), zip(last[1:], heights[1:], strict=True), strict=False
    ):
        assert (height <= above) if value <= other else (height >= above)
    if max(last, default=0.0) > 0:
        assert heights[last.index(max(last))] == len(BLOCKS) - 1


def test_what_pages_were_before_they_were_compressed_is_told_beside_the_wire() -> None:
    shrunk = copying()
    assert shrunk.report is not None
    assert "pages" not in shown(shrunk)
    last = shrunk.report.rounds[-1]
    last.compressed_pages, last.sent_pages, last.ms = 10, 2560, 100.0
    assert ": pages 100 MiB/s" in shown(shrunk)


def test_the_first_round_tells_what_is_left_of_it() -> None:
    first = copying(count=0)
    assert first.report is not None
    first.report.remaining_bytes = 5 << 20
    text = shown(first)
    assert "to go" in text
    assert "5.0 MiB" in text
    assert "wire" not in text


def test_a_summary_says_of_how_many_rounds_it_shows_some() -> None:
    many = completed()
    assert many.report is not None
    out = io.StringIO()
    show_result(Console(file=out, width=200), many)
    assert "evenly spaced" not in out.getvalue()
    many.report.rounds_closed = 4321
    show_result(Console(file=out, width=200), many)
    assert "6 of 4321 rounds, evenly spaced" in out.getvalue()


def test_progress_over_mqtt_counts_every_round() -> None:
    many = copying(count=7)
    assert many.report is not None
    assert json.loads(progress_publication(Topics("home"), many).payload)["round"] == 7
    many.report.rounds_closed = 4321
    assert json.loads(progress_publication(Topics("home"), many).payload)["round"] == 4321
    assert json.loads(progress_publication(Topics("home"), copying(apart=False)).payload)["round"] == 5
    assert json.loads(progress_publication(Topics("home"), waiting()).payload)["round"] == 0


def test_each_phase_gets_a_line_and_a_long_one_gets_one_now_and_then() -> None:
    lines = PlainLines()
    first = lines.next(waiting(), 0.0)
    assert first is not None
    assert "queued" in first
    assert lines.next(waiting(), 4.9) is None
    begun = lines.next(copying(), 5.0)
    assert begun is not None
    assert "5 rounds" in begun
    assert "expected downtime 142 ms, limit 300 ms" in begun
    assert lines.next(replace(copying(), reason="asks again"), 9.9) is None
    assert "asks again" in (lines.next(replace(copying(), reason="asks again"), 10.0) or "")
    assert lines.next(replace(completed(), phase=Phase.COMPLETED), 10.1) is not None


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_no_terminal_or_a_dumb_one_gets_lines_where_they_are_asked_for(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    for lines in (True, False):
        out = io.StringIO()
        with LiveProgress(Console(file=out, force_terminal=terminal), lines=lines) as progress:
            progress.update(copying("[bold]guest"))
        assert out.getvalue().startswith("[bold]guest host-a -> host-b: pre-copy") if lines else not out.getvalue()
        assert "\x1b" not in out.getvalue()


def test_an_order_that_got_no_row_names_neither_a_source_nor_an_epoch() -> None:
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as captured:
        show_result(console, replace(waiting(), source="", epoch=0))
    said = captured.get()
    assert "qat-guest  -> host-b" in said
    assert "epoch" not in said
