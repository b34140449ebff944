"""Refusals in the log: all that a person needs, and never more than a disk can take."""

import io
import json

import pytest

from vm_migration.errors import Unauthorised, Unreachable
from vm_migration.link import refusals
from vm_migration.link.identity import Identity
from vm_migration.link.refusals import LINES_AT_ONCE, LINES_PER_SECOND, note_refusal, note_turned_away
from vm_migration.telemetry import logs
from vm_migration.telemetry.allowance import Allowance
from vm_migration.telemetry.counts import REFUSED_CALLS

VERA = Identity.parse("viaduct://home/viewer/vera")
WIM = Identity.parse("viaduct://home/viewer/wim")
BEGIN = "/vm_migration.api.v1.Source/Begin"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setattr(refusals, "_lines", Allowance(LINES_AT_ONCE, LINES_PER_SECOND))
    written = io.StringIO()
    logs.configure("test", stream=written)
    return written


class Clock:
    """Stands where it is put."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def refused(peer: Identity | None, times: int) -> None:
    for _ in range(times):
        note_refusal(Unauthorised("role", "It may not", ""), BEGIN, peer, "ipv4:10.0.0.7:5")


def lines(log: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_who_calls_without_end_has_so_many_lines_and_all_are_counted(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(refusals, "time", clock)
    before = REFUSED_CALLS.read().get((BEGIN, "viewer", "role"), 0)
    refused(VERA, 5000)
    assert len(lines(log)) == LINES_AT_ONCE
    assert REFUSED_CALLS.read()[BEGIN, "viewer", "role"] == before + 5000
    clock.now += 1.0
    refused(VERA, 2)
    assert len(lines(log)) == LINES_AT_ONCE + 1
    assert lines(log)[-1]["withheld"] == 5000 - LINES_AT_ONCE


def test_one_who_floods_hides_nobody_else(log: io.StringIO) -> None:
    refused(VERA, 5 * LINES_AT_ONCE)
    refused(None, 5 * LINES_AT_ONCE)
    refused(WIM, 1)
    last = lines(log)[-1]
    assert (last["peer"], "withheld" in last) == (WIM.uri, False)


def test_the_first_line_of_a_peer_has_nothing_withheld(log: io.StringIO) -> None:
    refused(None, 1)
    assert lines(log)[0]["peer"] == "nobody"
    assert "withheld" not in lines(log)[0]


def test_who_is_turned_away_without_end_has_so_many_lines_and_his_refusals_have_theirs(log: io.StringIO) -> None:
    for _ in range(5000):
        note_turned_away(Unreachable("too-many-calls", "It has 256 calls open", ""), BEGIN, VERA, "ipv4:10.0.0.7:5")
    assert len(lines(log)) == LINES_AT_ONCE
    first = lines(log)[0]
    assert (first["event"], first["peer"], first["address"]) == ("call turned away", VERA.uri, "ipv4:10.0.0.7:5")
    assert (first["method"], first["code"]) == (BEGIN, "too-many-calls")
    refused(VERA, 1)
    assert lines(log)[-1]["event"] == "call refused"
