"""A host that returns after an operator's recovery: what it does with its copy, before it serves anything."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from source_agent.agent import SourceAgent
from source_agent.source_service import SourceService
from source_agent.terms import encode
from tests.fakes.fake_destination import FakeDestination, served
from tests.fakes.fake_machine import MACHINE, Held
from tests.source_agent.departures import KEY, TERMS, leaving
from tests.source_agent.test_source_recovery import NO_CONTEXT, last, started
from tests.vm_migration.handover.test_yielding import GONE_ON, TAKEN, TAKEN_BELOW
from vm_migration.api.v1 import types_pb2
from vm_migration.api.v1.destination_pb2 import IncomingReport
from vm_migration.handover.record import Record
from vm_migration.handover.record import encode as encode_record
from vm_migration.handover.states import State
from vm_migration.wire.attempt_key import attempt_key


def told(record: Record, *, alive: bool) -> IncomingReport:
    return IncomingReport(
        last_state=record.state,
        highest_epoch=record.highest_epoch,
        owned_epoch=record.owned_epoch,
        process_alive=alive,
        record=encode_record(record.public()).decode(),
    )


@asynccontextmanager
async def returned(
    folder: Path, monkeypatch: pytest.MonkeyPatch, state: State, there: IncomingReport, *, dead: bool = False
) -> AsyncIterator[tuple[Held, SourceAgent, SourceService]]:
    """Start the agent of a host that stands so, with host-c answering; its machine's process may be dead."""
    with leaving(folder, state) as held:
        if dead:
            held.machine.end()
        async with (
            served(FakeDestination(report=there)) as host,
            started(held, monkeypatch, {"host-c": host.address}) as (agent, service),
        ):
            yield held, agent, service


@pytest.mark.parametrize("state", [State.OWNER, State.RELEASED])
async def test_a_copy_is_retired_for_a_machine_that_was_taken_at_a_third_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    async with returned(tmp_path, monkeypatch, state, told(TAKEN, alive=True)) as (held, agent, _):
        assert last(held).state is State.RETIRED
        assert "operator" in last(held).reason
        assert not held.directory.path.exists()
        assert agent.complaint(MACHINE) == ""


async def test_a_copy_is_kept_beside_a_taken_one_that_has_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with returned(tmp_path, monkeypatch, State.OWNER, told(TAKEN, alive=False)) as (held, agent, _):
        assert last(held).state is State.OWNER
        assert held.directory.path.exists()
        assert agent.complaint(MACHINE).startswith("outranked")  # a person decides


async def test_a_copy_whose_process_is_gone_gives_way_at_any_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = told(TAKEN_BELOW, alive=True)
    async with returned(tmp_path, monkeypatch, State.RELEASED, there, dead=True) as (held, _, _):
        assert last(held).state is State.RETIRED


async def test_a_machine_that_went_on_since_is_given_way_to_where_a_person_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = told(GONE_ON, alive=True)
    async with returned(tmp_path, monkeypatch, State.OWNER, there) as (held, agent, service):
        assert last(held).state is State.OWNER
        assert agent.complaint(MACHINE).startswith("outranked")
        request = types_pb2.MachineName(machine=MACHINE)
        report = await service.Recover(request, NO_CONTEXT)  # type: ignore[arg-type]  # it looks at no context
        assert report.last_state == State.RETIRED
        assert agent.complaint(MACHINE) == ""


async def test_an_attempt_that_hands_over_to_nobody_gives_way_where_a_person_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with leaving(tmp_path, State.RELEASED) as held:
        nowhere = msgspec.structs.replace(TERMS, control_address="127.0.0.1:1", bulk_address="127.0.0.1:1")
        await held.custody.write(lambda record: msgspec.structs.replace(record, policy=encode(nowhere)))
        async with (
            served(FakeDestination(report=IncomingReport())) as host,
            started(held, monkeypatch, {"host-c": host.address}) as (agent, service),
        ):
            assert last(held).state is State.RELEASED
            host.report = told(TAKEN, alive=True)
            request = types_pb2.MachineName(machine=MACHINE)
            report = await service.Recover(request, NO_CONTEXT)  # type: ignore[arg-type]  # it looks at no context
            assert report.last_state == State.RETIRED
            failure = agent.attempt(attempt_key(KEY)).board.progress.failure
            assert failure is not None
            assert failure.code == "taken-elsewhere"
