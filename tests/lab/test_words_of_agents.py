"""What the lab makes of what agents and commands say."""

import asyncio
import os
from pathlib import Path
from uuid import uuid4

import grpc.aio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.scenario import Expectation, RunSpecification
from lab.through_agents import migration
from lab.through_agents.agents_of_site import HostAgent
from lab.through_agents.handoffs import Handoffs
from lab.through_agents.migration import MigrationResult, Order, migrate, preflight
from lab.through_agents.scenario_run import HOSTS, Laboratory, _moments, _Run, _until_middle, refused_pages
from tests.lab.rehearsed_machines import small_scenario
from vm_migration.api.v1.source_pb2 import AttemptReport
from vm_migration.api.v1.types_pb2 import MachineStatus, Round
from vm_migration.errors import InternalError

PAGES = st.frozensets(st.integers(0, 40), max_size=30)
RESULT = """{"schema": "viaduct.migration.v1", "attempt": "a", "outcome": "failed", "epoch": 2, "downtime_ms": null,
"rounds": [{"ms": 1.5}], "pages_mismatched": 3, "blockers": [], "warnings": [{"code": "w", "message": "m", "x": 1}],
"error": {"code": "pages-mismatched", "message": "They differ", "hint": "h"}}"""
ERROR = '{"schema": "viaduct.error.v1", "code": "unknown-machine", "message": "m", "hint": "h", "exit_code": 2}'


@given(lost=PAGES, told=st.integers(0, 30))
def test_pages_that_an_agent_does_not_name_are_the_oracle_s_where_all_agrees(lost: frozenset[int], told: int) -> None:
    named = sorted(lost)[:told]
    assert refused_pages(named, len(lost), lost) == lost


@given(lost=PAGES, refused=PAGES, told=st.integers(0, 30))
def test_other_pages_are_never_taken_for_the_oracle_s(lost: frozenset[int], refused: frozenset[int], told: int) -> None:
    named = sorted(refused)[:told]
    seen = refused_pages(named, len(refused), lost)
    if len(refused) != len(lost) or not set(named) <= lost:
        assert seen == set(named)
    if told >= len(refused) != 0:
        assert (seen == lost) == (refused == lost)


@pytest.mark.parametrize(
    ("report", "moments"),
    [
        (AttemptReport(phase="begun"), []),
        (AttemptReport(phase="pre-copy"), ["tracking"]),
        (AttemptReport(phase="pre-copy", percent=24), ["tracking"]),
        (AttemptReport(phase="pre-copy", percent=25), ["tracking", "round-0"]),
        (AttemptReport(phase="pre-copy", rounds=[Round(), Round()]), ["tracking", "round-0", "round-1", "round-2"]),
        (AttemptReport(phase="stopping", percent=99, rounds=[Round()]), []),
    ],
)
def test_a_report_shows_which_moments_have_come(report: AttemptReport, moments: list[str]) -> None:
    assert list(_moments(report)) == moments


def test_a_later_round_has_its_middle_when_half_of_it_is_sent() -> None:
    begins = AttemptReport(phase="pre-copy", rounds=[Round(), Round()], remaining_bytes=3000)
    assert _until_middle("round-2", begins, 1000) == 1.5
    assert _until_middle("round-1", begins, 1000) == 0.0  # it is over
    assert _until_middle("round-0", AttemptReport(phase="pre-copy", remaining_bytes=3000, percent=50), 1000) == 0.0


def test_from_outside_nothing_is_expected_that_only_the_inside_shows() -> None:
    inside = {"flushes": "none", "unmaps": 3, "stale_mappings": 0, "tracker": "iommu", "own_errors": "some"}
    expected = Expectation.model_validate(
        {"outcome": "completed", "pages_lost": "none", "standstill_as_planned": True, **inside}
    )
    assert expected.from_outside() == Expectation(outcome="completed", pages_lost="none")


async def test_an_oracle_that_could_not_look_is_told(tmp_path: Path) -> None:
    handoffs = Handoffs(lambda _machine: frozenset())
    machine = str(uuid4())
    handoffs.failures[machine] = "Process 7 holds no RAM"
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        agents = {host: HostAgent(host, channel) for host in HOSTS}
        site = Laboratory(agents, handoffs, tmp_path, dict.fromkeys(HOSTS, tmp_path), tmp_path)
        run = _Run(small_scenario(), site, MachineStatus(machine=machine))
        with pytest.raises(InternalError, match="small could not be compared: Process 7 holds no RAM"):
            await run._pages(msgspec.json.decode(RESULT, type=MigrationResult))


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order("guest", "host-b", RunSpecification(timeout_ms=1000), tmp_path / "viaduct.toml")


def answers(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Have a script stand for `viaduct`."""
    path = folder / "viaduct"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    monkeypatch.setattr(migration, "program", lambda _name: str(path))


async def test_a_result_is_read_whatever_else_is_in_it(
    order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(
        tmp_path, monkeypatch, f"echo \"$@\" > {tmp_path}/words\necho noise >&2\ncat <<'END'\n{RESULT}\nEND\nexit 4"
    )
    found = await migrate(order)
    assert (found.outcome, found.pages_mismatched, [one.code for one in found.warnings]) == ("failed", 3, ["w"])
    assert found.error is not None
    assert (found.error.code, found.downtime_ms, len(found.rounds)) == ("pages-mismatched", None, 1)
    words = (tmp_path / "words").read_text().split()
    assert words[:4] == ["migrate", "guest", "--to", "host-b"]
    assert {"--json", "300ms", "1000ms", str(order.configuration)} <= set(words)


@pytest.mark.parametrize("script", ["exit 1", "echo '{'", f"echo '{ERROR}'", "echo '{\"candidates\": 7}'"])
async def test_an_answer_that_is_no_result_is_our_fault(
    script: str, order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(tmp_path, monkeypatch, script)
    for ask in (migrate, preflight):
        with pytest.raises(InternalError, match="answered with no result"):
            await ask(order)


async def test_a_command_that_is_not_waited_for_is_ended(
    order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "pid"
    os.mkfifo(told)
    answers(tmp_path, monkeypatch, f"echo $$ > {told}\nexec sleep 60")
    asking = asyncio.create_task(migrate(order))
    pid = int(await asyncio.to_thread(told.read_text))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
