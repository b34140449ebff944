"""The boundaries of a standstill: exact on one clock, bounded on two."""

from source_agent.handing_over import Handed
from source_agent.standstill import downtime_of
from source_agent.switchover import Ready
from vm_migration.handover.evidence import InstanceGone
from vm_migration.machine.port import Stop
from vm_migration.transfer.convergence import RoundMeasurement

MS = 1_000_000
ROUND = RoundMeasurement(round=1, dirty_pages=1, sent_pages=1, zero_pages=0, wire_bytes=1, ms=1.0, dirtied_pages=0)
READY = Ready(Stop(1, True, 100 * MS), InstanceGone("a"), 105 * MS, ROUND, 125 * MS, 130 * MS, 140 * MS, 1)


def handed(boot_id: str, executed_ns: int) -> Handed:
    return Handed(sent_ns=142 * MS, answered_ns=160 * MS, executed_ns=executed_ns, boot_id=boot_id, activate_ns=10 * MS)


def test_on_one_clock_it_ends_when_the_guest_executed() -> None:
    found = downtime_of(READY, handed("here", 150 * MS), "here")
    assert found.shared_clock
    assert (found.downtime_us, found.uncertainty_us) == (50_000, 0)
    parts = (found.pause_us, found.last_round_us, found.device_state_us, found.verify_us, found.handoff_us)
    assert sum(parts) + found.resume_us == found.downtime_us


def test_on_two_clocks_it_ends_with_the_answer_and_says_how_unsure_that_is() -> None:
    found = downtime_of(READY, handed("elsewhere", 99_999 * MS), "here")
    assert not found.shared_clock
    assert found.downtime_us == 60_000
    assert found.uncertainty_us > 0


def test_an_execution_that_was_not_told_is_not_used() -> None:
    assert not downtime_of(READY, handed("here", 0), "here").shared_clock
