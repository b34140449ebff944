"""Which host may speak for an attempt: its source, and whoever's word changes nothing any more."""

from uuid import UUID

import pytest

from dest_agent.speaking import require_speaker
from tests.orchestrator.recovery.journalled_hosts import activating, active, outgoing, owner, prepared, ready, replaced
from vm_migration.errors import Unauthorised
from vm_migration.handover.record import AttemptKey, Record

READY = ready(prepared(outgoing(owner())))
ACTIVE = active(activating(READY))


def key(record: Record, attempt: str = "", epoch: int = 0) -> AttemptKey:
    return AttemptKey(record.machine, attempt or record.attempt or "", epoch or record.epoch, record.term)


@pytest.mark.parametrize("record", [prepared(outgoing(owner())), READY, ACTIVE], ids=["prepared", "ready", "active"])
def test_the_source_of_an_attempt_speaks_for_it_and_no_other_host(record: Record) -> None:
    require_speaker(record, key(record), record.peer)
    require_speaker(record, key(record), None)
    with pytest.raises(Unauthorised) as caught:
        require_speaker(record, key(record), "host-c")
    assert caught.value.code == "wrong-source"


def test_an_earlier_source_repeats_what_changes_nothing() -> None:
    earlier = str(UUID(int=7))
    require_speaker(READY, key(READY, attempt=earlier, epoch=READY.epoch - 1), "host-c")
    told = replaced(ACTIVE, former_retired=True)
    require_speaker(told, key(told, attempt=earlier), "host-c")


def test_nobody_tells_an_owner_that_another_host_has_retired_its_copy() -> None:
    with pytest.raises(Unauthorised):
        require_speaker(ACTIVE, key(ACTIVE, attempt=str(UUID(int=7))), "host-c")
