"""A Prometheus that comes for the metrics: what it gets, and who gets nothing."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from vm_migration.daemon import metrics_endpoint as endpoint
from vm_migration.daemon.configuration import load
from vm_migration.daemon.metrics import metrics
from vm_migration.daemon.metrics_endpoint import MOST, metrics_endpoint
from vm_migration.errors import InvalidInput, Refused
from vm_migration.link.direct_tls import client_context
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue, renew
from vm_migration.link.tls import TlsFiles
from vm_migration.telemetry import gauges
from vm_migration.telemetry.counts import LOST_AUDIT_LINES
from vm_migration.telemetry.daemons import Daemon
from vm_migration.telemetry.gauges import Reading, nothing_read

LOOPBACK = "127.0.0.1:0"
EVERYWHERE = "0.0.0.0:0"
"""Not loopback, and there on every machine."""
GET = b"GET /metrics HTTP/1.1\r\nHost: it\r\n\r\n"


async def ask(address: str, request: bytes = GET, tls: ssl.SSLContext | None = None) -> tuple[str, dict[str, str], str]:
    """Return status line, headers and body; all empty where the connection was cut."""
    port = int(address.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="it" if tls else None)
    try:
        writer.write(request)
        await writer.drain()
        answer = await reader.read()
    except ConnectionError:
        return "", {}, ""
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
    head, _, body = answer.decode().partition("\r\n\r\n")
    status, *rest = head.split("\r\n")
    return status, dict(line.split(": ", 1) for line in rest), body


@contextlib.asynccontextmanager
async def serving(
    address: str = LOOPBACK, files: TlsFiles | None = None, read: gauges.Read = nothing_read
) -> AsyncIterator[str]:
    async with metrics_endpoint(address, Daemon.ORCHESTRATOR, read, files) as where:
        yield where


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    create_authority(tmp_path, "home")
    return issue(tmp_path, Identity("home", Role.ORCHESTRATOR, "orchestrator"))


def viewer(folder: Path, site: str = "home") -> ssl.SSLContext:
    context = client_context(issue(folder, Identity(site, Role.VIEWER, "prometheus")))
    context.check_hostname = False
    context.set_alpn_protocols(["http/1.1"])
    return context


async def test_what_is_read_is_told_as_prometheus_reads_it() -> None:
    async def read() -> Sequence[Reading]:
        return [Reading(gauges.QUEUE_LENGTH, 7)]

    async with serving(read=read) as where:
        status, headers, body = await ask(where)
    assert (status, headers["Content-Length"]) == ("HTTP/1.1 200 OK", str(len(body)))
    found = {one.name: one.value for family in text_string_to_metric_families(body) for one in family.samples}
    assert found["viaduct_queue_length"] == 7
    assert found["viaduct_build_info"] == 1
    assert found["viaduct_lost_audit_lines_total"] == sum(LOST_AUDIT_LINES.read().values())
    assert found["process_resident_memory_bytes"] > 0


async def test_a_collector_may_ask_for_openmetrics() -> None:
    accept = b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n"
    async with serving() as where:
        _, headers, body = await ask(where, accept)
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    parsed = openmetrics(body)  # type: ignore[no-untyped-call]  # this parser has no types, unlike the other one
    assert "viaduct_build" in {family.name.removesuffix("_info") for family in parsed}


@pytest.mark.parametrize(
    "version", [b"abc", b"1.0.0\nX-Told: by-who-asks", b"9" * 5000, b"", b"1..0", b"1.0.0; escaping=\xff", b"\x00"]
)
async def test_what_a_collector_says_of_its_versions_goes_no_further(version: bytes) -> None:
    accept = b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=" + version + b"\r\n\r\n"
    async with serving() as where:
        status, headers, body = await ask(where, accept)
    assert status == "HTTP/1.1 200 OK"
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "X-Told" not in headers
    assert body.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.1", "404"),
        (b"GET /metrics/../secret HTTP/1.1", "404"),
        (b"POST /metrics HTTP/1.1", "405"),
        (b"GET /metrics?name[]=up HTTP/1.1", "200"),
        (b"", "404"),
        (bytes(range(128, 256)), "404"),
    ],
)
async def test_there_is_one_page_and_one_way_to_ask_for_it(request_line: bytes, status: str) -> None:
    async with serving() as where:
        answer, _, _ = await ask(where, request_line + b"\r\n\r\n")
    assert answer.split()[1] == status


async def test_a_request_without_end_is_cut_off_and_others_are_answered() -> None:
    async with serving() as where:
        assert await ask(where, b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 10_000) == ("", {}, "")
        assert (await ask(where))[0] == "HTTP/1.1 200 OK"


async def test_whoever_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "SECONDS", 0.05)
    async with serving() as where:
        assert await ask(where, b"GET /metrics") == ("", {}, "")


async def test_the_silent_take_no_more_than_their_places() -> None:
    async with serving() as where, contextlib.AsyncExitStack() as stack:
        port = int(where.rpartition(":")[2])
        for _ in range(MOST):
            _, silent = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(silent.close)
        assert await ask(where) == ("", {}, "")
    async with serving() as where:
        assert (await ask(where))[0] == "HTTP/1.1 200 OK"


async def test_a_fault_in_reading_is_one_answer_s() -> None:
    failing = [True]

    async def read() -> Sequence[Reading]:
        if failing.pop() if failing else False:
            raise ZeroDivisionError("hidden")
        return ()

    async with serving(read=read) as where:
        status, _, body = await ask(where)
        assert status.split()[1] == "500"
        assert "hidden" not in body
        assert (await ask(where))[0] == "HTTP/1.1 200 OK"


async def test_a_store_that_rests_says_so() -> None:
    async def read() -> Sequence[Reading]:
        raise Refused("store-unusable", "The store cannot be used", "")

    async with serving(read=read) as where:
        status, _, body = await ask(where)
    assert (status.split()[1], body) == ("503", "The store cannot be used\n")


async def test_off_loopback_a_certificate_of_the_site_is_shown(files: TlsFiles, tmp_path: Path) -> None:
    reader = viewer(tmp_path)
    async with serving(EVERYWHERE, files) as where:
        assert (await ask(where, tls=reader))[0] == "HTTP/1.1 200 OK"
        renew(tmp_path, "orchestrator")
        assert (await ask(where, tls=reader))[0] == "HTTP/1.1 200 OK"
        assert await ask(where) == ("", {}, "")
        nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
        with contextlib.suppress(ssl.SSLError):  # TLS 1.3 tells a client with its first read
            assert await ask(where, tls=nobody) == ("", {}, "")


async def test_another_site_s_certificate_reads_nothing(files: TlsFiles, tmp_path: Path) -> None:
    other = tmp_path / "other"
    create_authority(other, "other")
    stranger = viewer(other, "other")
    stranger.verify_mode = ssl.CERT_NONE
    async with serving(EVERYWHERE, files) as where:
        with contextlib.suppress(ssl.SSLError):
            assert await ask(where, tls=stranger) == ("", {}, "")


async def test_plaintext_is_told_on_loopback_alone() -> None:
    with pytest.raises(InvalidInput) as refusal:
        async with serving(EVERYWHERE):
            pass
    assert refusal.value.code == "plaintext-refused"


async def test_an_address_that_is_taken_is_refused() -> None:
    async with serving() as where:
        with pytest.raises(Refused) as refusal:
            async with serving(where):
                pass
    assert refusal.value.code == "address-in-use"


async def test_each_daemon_answers_at_its_own_address() -> None:
    variables = {"VIADUCT_INSECURE": "1", "VIADUCT_METRICS_SOURCE": LOOPBACK, "VIADUCT_METRICS_DEST": LOOPBACK}
    configuration = load(None, variables)
    async with metrics(configuration, Daemon.SOURCE) as source, metrics(configuration, Daemon.DEST) as dest:
        assert 'daemon="viaduct-source-agent"' in (await ask(source["metrics"]))[2]
        assert 'daemon="viaduct-dest-agent"' in (await ask(dest["metrics"]))[2]
    async with metrics(configuration, Daemon.ORCHESTRATOR) as nowhere:
        assert nowhere == {}
