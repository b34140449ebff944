"""Who gives way to an operator's TAKEN: the model's rule, case by case."""

import msgspec
import pytest

from tests.vm_migration.handover.test_handover_operations import (
    ABORTED,
    ACTIVATING,
    ACTIVE,
    OUTGOING,
    OWNER,
    READY,
    RELEASED,
    RETIRED,
    STOPPED,
    B,
)
from vm_migration.errors import Refused
from vm_migration.handover.evidence import InstanceGone, Process
from vm_migration.handover.ownership import retired
from vm_migration.handover.record import Record
from vm_migration.handover.states import State
from vm_migration.handover.yielding import gives_way

ALIVE, GONE, UNKNOWN = Process.ALIVE, Process.GONE, Process.UNKNOWN
TAKEN = msgspec.structs.replace(READY, state=State.TAKEN, attempt=B, epoch=1, owned_epoch=9, highest_epoch=9)
"""From the copy of an earlier attempt, at a third host."""
TAKEN_BELOW = msgspec.structs.replace(TAKEN, owned_epoch=1, highest_epoch=1)
GONE_ON = msgspec.structs.replace(TAKEN, state=State.ACTIVE, attempt="later", epoch=10, owned_epoch=10)
GONE_AWAY = msgspec.structs.replace(GONE_ON, state=State.RETIRED)
HERE = [OWNER, OUTGOING, STOPPED, RELEASED, ABORTED, ACTIVATING, ACTIVE]


@pytest.mark.parametrize("own", HERE)
def test_a_living_copy_gives_way_to_a_living_owner_at_a_higher_epoch_alone(own: Record) -> None:
    owner = gives_way(own, ALIVE, TAKEN, ALIVE)
    assert owner is not None
    assert retired(own, owner, reason="taken").state is State.RETIRED
    assert gives_way(own, ALIVE, TAKEN, GONE) is None
    assert gives_way(own, ALIVE, TAKEN_BELOW, ALIVE) is None
    assert gives_way(own, UNKNOWN, TAKEN, ALIVE) is None


@pytest.mark.parametrize("own", HERE)
def test_a_copy_without_a_process_gives_way_to_any_taken(own: Record) -> None:
    owner = gives_way(own, GONE, TAKEN_BELOW, GONE)
    assert owner is not None
    with pytest.raises(Refused):
        retired(own, owner)
    with pytest.raises(Refused):
        retired(own, owner, gone=InstanceGone("another"))
    assert retired(own, owner, gone=InstanceGone(own.instance)).highest_epoch >= own.highest_epoch


@pytest.mark.parametrize("own", HERE)
def test_a_machine_that_went_on_from_taken_is_given_way_to_where_a_person_asks(own: Record) -> None:
    assert (gives_way(own, ALIVE, GONE_ON, ALIVE) is None) is own.owns
    assert gives_way(own, ALIVE, GONE_ON, ALIVE, asked=True) is not None
    assert gives_way(own, ALIVE, GONE_AWAY, ALIVE, asked=True) is None  # it is no owner any more


def test_a_destination_that_retired_the_attempt_ends_a_source_whose_process_is_gone() -> None:
    there = msgspec.structs.replace(ACTIVATING, state=State.RETIRED, highest_epoch=9)
    for own in (STOPPED, RELEASED):
        owner = gives_way(own, GONE, there, GONE)
        assert owner is not None
        assert retired(own, owner, gone=InstanceGone(own.instance)).state is State.RETIRED
        assert gives_way(own, ALIVE, there, GONE) is None


@pytest.mark.parametrize("other", [OWNER, OUTGOING, READY, ACTIVE, ABORTED, RETIRED])
def test_nobody_gives_way_to_anything_else(other: Record) -> None:
    for own in (OWNER, OUTGOING, RELEASED):
        assert gives_way(own, ALIVE, other, ALIVE) is None


@pytest.mark.parametrize("own", [READY, RETIRED])
def test_what_is_not_this_hosts_gives_way_to_nobody(own: Record) -> None:
    assert gives_way(own, GONE, TAKEN, ALIVE) is None
