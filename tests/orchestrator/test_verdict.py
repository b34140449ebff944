import itertools
from dataclasses import replace

import pytest

from orchestrator.attempt import Attempt, Outcome, Phase
from orchestrator.policy import MigrationPolicy
from orchestrator.verdict import verdict
from vm_migration.api.v1.destination_pb2 import IncomingReport
from vm_migration.api.v1.source_pb2 import OutgoingReport
from vm_migration.handover.record import Record, encode
from vm_migration.handover.states import State

EPOCH = 5
ATTEMPT = Attempt(
    attempt="a1",
    machine="m1",
    name="guest",
    source="host-a",
    destination="host-b",
    policy=MigrationPolicy(),
    created_at=0.0,
    updated_at=0.0,
    epoch=EPOCH,
    phase=Phase.PRE_COPY,
)


def outgoing(state: str, *, highest: int = EPOCH, released: int = 0) -> OutgoingReport:
    record = Record(machine="m1", state=State.OWNER, released_epoch=released, reason="the link broke")
    return OutgoingReport(state=state, highest_epoch=highest, record=encode(record).decode())


def incoming(state: str, owned: int = 0) -> IncomingReport:
    return IncomingReport(state=state, highest_epoch=EPOCH if state else 0, owned_epoch=owned)


@pytest.mark.parametrize(
    ("source", "destination", "outcome"),
    [
        (None, incoming("ACTIVE"), Outcome.COMPLETED),
        (None, incoming("", owned=EPOCH), Outcome.COMPLETED),
        (outgoing("RETIRED", released=EPOCH), None, Outcome.COMPLETED),
        (outgoing("RETIRED", released=EPOCH - 2), None, None),
        (outgoing("RELEASED", released=EPOCH), incoming("READY"), None),
        (outgoing("ABORTED"), None, Outcome.FAILED),
        (outgoing("RECLAIMED"), incoming("LOST"), Outcome.FAILED),
        (outgoing("LOST"), incoming("PREPARED"), Outcome.LOST),
        (outgoing("", highest=EPOCH + 1), incoming("DISCARDED"), Outcome.FAILED),
        (outgoing("", highest=EPOCH + 1, released=EPOCH + 1), None, None),
        (outgoing("", highest=EPOCH - 1), None, None),
        (OutgoingReport(), IncomingReport(), None),
        (OutgoingReport(highest_epoch=EPOCH + 1, record="not a record"), None, None),
        (None, incoming("TAKEN", owned=EPOCH + 3), Outcome.COMPLETED),
    ],
)
def test_the_journals_decide(
    source: OutgoingReport | None, destination: IncomingReport | None, outcome: Outcome | None
) -> None:
    found = verdict(ATTEMPT, source, destination)
    assert (None if found is None else found.outcome) == outcome
    if found is not None and destination is not None and destination.state == "TAKEN":
        assert [one.code for one in found.warnings] == ["may-miss-writes"]


def test_an_abort_that_was_asked_for_is_a_cancel() -> None:
    found = verdict(replace(ATTEMPT, cancel_requested=True), outgoing("ABORTED"), None)
    assert found is not None
    assert (found.phase, found.outcome) == (Phase.ABORTED, Outcome.CANCELLED)


def test_silence_and_open_states_say_nothing() -> None:
    open_there = ["", "PREPARED", "READY", "ACTIVATING", "DISCARDED", "LOST"]
    open_here = ["", "OUTGOING", "STOPPED", "RELEASED"]
    for there, here in itertools.product([None, *map(incoming, open_there)], [None, *map(outgoing, open_here)]):
        assert verdict(ATTEMPT, here, there) is None
    assert verdict(replace(ATTEMPT, epoch=0), outgoing("ABORTED"), incoming("ACTIVE")) is None
