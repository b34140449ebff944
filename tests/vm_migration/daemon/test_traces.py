"""Spans are sent where the configuration says; a collector that is away harms nobody, and no library is missed late."""

import asyncio
import contextlib
import sys
from functools import partial
from pathlib import Path

import grpc
import pytest

from tests.fakes.span_collector import collecting
from vm_migration.daemon.configuration import load
from vm_migration.daemon.traces import tracing
from vm_migration.errors import InvalidInput, Refused
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue
from vm_migration.telemetry import traces

ATTEMPT = "4286b77b-0aa1-40f3-a440-ee2e111b6c1c"
SUBJECT: traces.Subject = {"machine": "m", "attempt": ATTEMPT, "epoch": 3}


def configured(endpoint: str, **more: str) -> dict[str, str]:
    return {"VIADUCT_INSECURE": "1", "VIADUCT_TRACES_ENDPOINT": endpoint, **more}


async def test_nothing_is_traced_where_no_collector_is_named() -> None:
    async with tracing(load(None, {}), "it"):
        with traces.span("call", SUBJECT):
            assert traces.carried() is None


async def test_a_span_carries_its_attempt_to_whoever_is_called() -> None:
    with collecting() as (address, collector):
        async with tracing(load(None, configured(address)), "it"):
            with traces.span("here", SUBJECT):
                carried = traces.carried()
            assert carried is not None
            told = dict(carried)
            with traces.span("there", SUBJECT, lambda: {**told, "viaduct-ticket-bin": b"hidden"}):
                pass
        here, there = sorted(collector.spans(lambda spans: len(spans) == 2), key=lambda one: one.name)
    assert here.trace == there.trace == ATTEMPT.replace("-", "")
    assert (here.parent, there.parent) == ("", here.span)
    assert told["traceparent"].startswith(f"00-{here.trace}-{here.span}-")
    assert here.attributes == {"viaduct.machine": "m", "viaduct.attempt": ATTEMPT, "viaduct.epoch": 3}


async def test_what_belongs_to_no_attempt_is_no_span() -> None:
    with collecting() as (address, collector):
        async with tracing(load(None, configured(address)), "it"):
            with traces.span("DestroyMachine", {"machine": "m"}):
                assert traces.carried() is None
            with traces.span("last", SUBJECT):
                pass
        assert [one.name for one in collector.spans(bool)] == ["last"]


@pytest.mark.parametrize(
    ("error", "told"), [(Refused("no-memory", "hidden words", ""), "no-memory"), (ValueError("hidden"), "ValueError")]
)
async def test_a_failure_is_told_by_its_code_or_its_type_and_no_more(error: Exception, told: str) -> None:
    with collecting() as (address, collector):
        async with tracing(load(None, configured(address)), "it"):
            with contextlib.suppress(Refused, ValueError), traces.span("call", SUBJECT):
                raise error
        (span,) = collector.spans(bool)
    assert span.failed == told


async def test_a_caller_s_nonsense_is_no_parent() -> None:
    with collecting() as (address, collector):
        async with tracing(load(None, configured(address)), "it"):
            for nonsense in ("", "00-zz-11-01", "9" * 10_000, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
                with traces.span("call", SUBJECT, partial(dict, traceparent=nonsense)):
                    pass
        spans = collector.spans(lambda spans: len(spans) == 4)
    assert {(one.parent, one.trace) for one in spans} == {("", ATTEMPT.replace("-", ""))}


async def test_a_phase_ends_where_the_next_one_begins() -> None:
    with collecting() as (address, collector):
        async with tracing(load(None, configured(address)), "it"):
            phases = traces.Phases()
            phases.enter("pre-copy", SUBJECT)
            phases.enter("stopping", SUBJECT)
            phases.leave()
            phases.leave()
        first, second = sorted(collector.spans(lambda spans: len(spans) == 2), key=lambda one: one.started_ns)
    assert (first.name, second.name) == ("pre-copy", "stopping")
    assert first.ended_ns <= second.started_ns <= second.ended_ns


async def test_a_collector_that_is_away_keeps_no_daemon_from_ending() -> None:
    async with asyncio.timeout(9), tracing(load(None, configured("127.0.0.1:9")), "it"):  # a daemon has 10 to end
        with traces.span("call", SUBJECT):
            pass


async def test_a_library_that_is_missing_is_named_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vm_migration.daemon.opentelemetry_tracer", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(InvalidInput) as refusal:
        async with tracing(load(None, configured("127.0.0.1:4317")), "it"):
            pass
    assert refusal.value.code == "traces-not-installed"
    assert "viaduct[traces]" in refusal.value.hint


async def test_plaintext_off_loopback_is_refused() -> None:
    with pytest.raises(InvalidInput) as refusal:
        async with tracing(load(None, configured("10.0.0.9:4317")), "it"):
            pass
    assert refusal.value.code == "plaintext-refused"


async def test_off_loopback_spans_go_over_tls_to_whom_the_authority_vouches_for(tmp_path: Path) -> None:
    create_authority(tmp_path, "home")
    its = issue(tmp_path, Identity("home", Role.HOST, "collector")).load()
    mine = issue(tmp_path, Identity("home", Role.ORCHESTRATOR, "orchestrator"))
    credentials = grpc.ssl_server_credentials([(its.key, its.certificate)], its.ca, require_client_auth=True)
    files = {"CA": mine.ca, "CERTIFICATE": mine.certificate, "KEY": mine.key}
    more = {f"VIADUCT_TRACES_{name}": str(path) for name, path in files.items()}
    with collecting(credentials) as (address, collector):
        from vm_migration.daemon.opentelemetry_tracer import OpenTelemetryTracer

        tracer = OpenTelemetryTracer("it", address.replace("127.0.0.1", "localhost"), mine)
        with traces.using(tracer), traces.span("call", SUBJECT):
            pass
        await asyncio.to_thread(tracer.close)
        assert [one.name for one in collector.spans(bool)] == ["call"]
    assert load(None, configured("10.0.0.9:4317", **more)).traces.key == mine.key
