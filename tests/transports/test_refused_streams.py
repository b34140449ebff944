"""A stream that is refused for who opens it is a line of the log with his identity, and counted, on every transport."""

import asyncio
import io
import json
from pathlib import Path

import pytest

from tests.fakes.far_end import TICKET, FarEnd, an_end, far_end
from vm_migration.link import refusals
from vm_migration.link.refusals import LINES_AT_ONCE
from vm_migration.telemetry import logs
from vm_migration.telemetry.allowance import Allowance
from vm_migration.telemetry.counts import REFUSED_CALLS

METHOD = "/vm_migration.api.v1.Bulk/Send"
SECONDS = 20.0


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setattr(refusals, "_lines", Allowance(LINES_AT_ONCE, 0))  # whatever was refused before this
    written = io.StringIO()
    logs.configure("test", stream=written)
    return written


async def refused(far: FarEnd, name: str, ticket: bytes) -> None:
    with an_end():
        async with asyncio.timeout(SECONDS), far.streams(name, ticket):
            await asyncio.Event().wait()


@pytest.mark.parametrize("transport", ["grpc", "direct", "sealed"])
async def test_a_stream_that_is_refused_is_told_with_who_opened_it(
    tmp_path: Path, log: io.StringIO, transport: str
) -> None:
    wrong = bytes(len(TICKET))
    expected = [("host-a", "host", wrong, "wrong-ticket"), ("host-c", "host", TICKET, "wrong-source")]
    expected.append(("op", "operator", TICKET, "role"))
    before = REFUSED_CALLS.read()
    async with far_end(tmp_path, transport) as far:
        for name, _, ticket, _ in expected:
            await refused(far, name, ticket)
    told = [json.loads(line) for line in log.getvalue().splitlines() if '"call refused"' in line]
    assert [(line["peer"], line["code"], line["method"]) for line in told] == [
        (f"viaduct://home/{role}/{name}", code, METHOD) for name, role, _, code in expected
    ]
    assert all("127.0.0.1" in line["address"] for line in told)
    after = REFUSED_CALLS.read()
    for _, role, _, code in expected:
        assert after[METHOD, role, code] == before.get((METHOD, role, code), 0) + 1
    assert wrong.hex() not in log.getvalue()
    assert TICKET.hex() not in log.getvalue()
