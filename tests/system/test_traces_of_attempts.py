"""An attempt's spans, of every process that had a part in it, are one trace."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.fakes.span_collector import Collector, Span, collecting
from tests.system.attempts import PATIENT, machine, specification
from tests.system.command import viaduct
from tests.system.orchestrated import orchestrated
from tests.system.site import Site

ORCHESTRATOR, SOURCE, DEST = "viaduct-orchestrator", "viaduct-source-agent", "viaduct-dest-agent"


@pytest.fixture
def traced() -> Iterator[tuple[Site, Collector]]:
    """Two hosts that send their spans to a collector, as whoever drives does."""
    with tempfile.TemporaryDirectory(prefix="viaduct-") as folder, collecting() as (address, collector):
        site = Site(Path(folder), {"host-a": "1GiB", "host-b": "1GiB"})
        for name in (*site.budgets, "operator"):
            with site.configuration(name).open("a") as configuration:
                configuration.write(f'[traces]\nendpoint = "{address}"\n')
        with contextlib.closing(site):
            site.run("host-a", "host-b")
            yield site, collector


def complete(spans: list[Span]) -> bool:
    return {("migration", ORCHESTRATOR), ("attempt", SOURCE), ("Destination/Handoff", DEST)} <= {
        (one.name, one.process) for one in spans
    }


@pytest.mark.parametrize("daemon", [True, False], ids=["driven by a daemon", "driven by the command"])
async def test_one_trace_has_what_three_processes_did(traced: tuple[Site, Collector], daemon: bool) -> None:
    site, collector = traced
    with contextlib.ExitStack() as stack:
        config = stack.enter_context(orchestrated(site)).operator if daemon else None
        async with site.agents() as agents, machine(site, agents, specification("traced")) as created:
            moved = await viaduct(site, "migrate", created.machine, "--to", "host-b", *PATIENT, "--json", config=config)
            assert moved.exit_code == 0, moved.err
            attempt = str(moved.document["attempt"])
        site.stop("host-a", "host-b")
    spans = [one for one in collector.spans(complete) if one.trace == UUID(attempt).hex]
    assert complete(spans), "each process begins in the trace of the attempt, or was carried there"
    known = {one.span: one for one in spans}
    roots = {one.name for one in spans if not one.parent}
    assert "migration" in roots
    assert roots <= {"migration", "Orchestrator/SubmitMigration"}
    assert all(one.parent in known for one in spans if one.parent)

    def above(name: str) -> list[str]:
        one = next(span for span in spans if span.name == name)
        found = []
        while one.parent:
            one = known[one.parent]
            found.append(one.name)
        return found

    assert above("Source/Begin") == ["migration"]
    assert above("Destination/Prepare") == ["migration"]
    assert above("attempt") == ["Source/Begin", "migration"]
    assert above("stopping") == ["attempt", "Source/Begin", "migration"]
    for name in ("Destination/OpenRound", "Destination/Finish", "Destination/Handoff"):
        assert above(name) == ["attempt", "Source/Begin", "migration"], name
    phases = [one.name for one in sorted(spans, key=lambda one: one.started_ns) if "/" not in one.name]
    assert phases[:2] == ["migration", "attempt"]
    assert phases[2:] == ["pre-copy", "stopping", "verifying", "releasing", "handing-over"]
    for one in spans:
        assert one.ended_ns >= one.started_ns
        assert (one.failed, one.attributes["viaduct.attempt"]) == ("", attempt)
        assert one.attributes["viaduct.machine"] == created.machine
