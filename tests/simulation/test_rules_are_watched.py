"""The simulation sees it when a rule of the handover is taken away: each in turn, from the agents' own code."""

from collections.abc import Sequence

import pytest

import dest_agent.settling
import source_agent.ending
import source_agent.handing_over
import source_agent.outgoing_attempt
from tests.simulation.disks import ProcessDisk
from tests.simulation.faults import KINDS, STATES, Kind
from tests.simulation.guest import Guest
from tests.simulation.schedule import run
from vm_migration.handover import arrival, awaiting
from vm_migration.handover.awaiting import Awaited, Step
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import Absence, SideView
from vm_migration.handover.journal import Journal
from vm_migration.handover.record import Record
from vm_migration.handover.states import State
from vm_migration.transfer.incoming import IncomingImage
from vm_migration.transfer.verified_pages import VerifyResult
from vmm.process.fence import Fence

ENOUGH = 72
"""Schedules within which each rule's absence must show."""


def seeds_of(*kinds: Kind) -> list[int]:
    """The first seeds that aim these kinds of fault at each state."""
    return [KINDS.index(kind) * len(STATES) + at for kind in kinds for at in range(len(STATES))]


def caught(rules: Sequence[str], seeds: Sequence[int]) -> str:
    """Run schedules until one breaks a rule; it must be one of those named."""
    for seed in seeds[:ENOUGH]:
        seen = run(seed)
        if seen.rule:
            assert seen.rule in rules, f"seed {seed}: {seen.failure}"
            return seen.failure
    pytest.fail(f"{len(seeds[:ENOUGH])} schedules ran as if nothing were missing")


def unchanged(last: Record, **_evidence: object) -> Record:
    """A change of the journal that is not made."""
    return last


def test_aborted_is_durable_before_the_guest_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_agent.ending, "aborted", unchanged)
    caught(
        ["run-before-record", "none-running", "never-quiet"],
        seeds_of(Kind.FULL_DEST, Kind.KILL_DEST_AGENT, Kind.PARTITION),
    )


def test_the_secret_leaves_after_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_agent.handing_over, "released", unchanged)
    caught(["secret-before-released"], seeds_of(Kind.CANCEL))


def test_activating_is_durable_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dest_agent.settling, "activating", unchanged)
    caught(["run-before-record"], seeds_of(Kind.CANCEL))


def test_a_flush_that_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    real, lies = ProcessDisk.flush, [0]

    def flush(disk: ProcessDisk, file: int) -> None:
        lies[0] += 1
        if lies[0] % 3:
            real(disk, file)

    monkeypatch.setattr(ProcessDisk, "flush", flush)
    caught(
        ["run-before-record", "secret-before-released", "two-running", "lost-write", "never-quiet"],
        seeds_of(Kind.KILL_SOURCE_AGENT),
    )


def test_the_image_is_kept_until_the_destination_is_active(monkeypatch: pytest.MonkeyPatch) -> None:
    async def free_at_once(custody: Custody) -> None:
        await custody.port.destroy()

    monkeypatch.setattr(source_agent.outgoing_attempt, "fence_off", free_at_once)
    caught(["freed-last-copy"], seeds_of(Kind.CANCEL))


def test_a_whole_image_is_discarded_on_proof_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(_source: SideView, _here: SideView, *, out_of_patience: bool) -> Awaited:
        del out_of_patience
        return Awaited(Step.DISCARD, "Nobody came for it")

    monkeypatch.setattr(awaiting, "_image", impatient)
    monkeypatch.setattr(arrival, "_ENDED_AT_SOURCE", frozenset({*State, *Absence}))
    caught(
        ["unfounded", "freed-last-copy", "none-running", "never-quiet"],
        seeds_of(Kind.KILL_DEST_AGENT, Kind.KILL_DEST_AT_DISK),
    )


def test_a_page_that_the_dirty_map_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verification stands behind the map: both are taken away."""
    real_write = Guest.write

    def write(guest: Guest) -> None:
        before = set(guest._dirty or ())
        real_write(guest)
        if guest._dirty is not None and guest.counter % 2:
            guest._dirty = before

    def verify(image: IncomingImage) -> VerifyResult:
        return VerifyResult(image.pages, 0, 0, ())

    monkeypatch.setattr(Guest, "write", write)
    monkeypatch.setattr(IncomingImage, "verify", verify)
    caught(["lost-write"], seeds_of(Kind.CANCEL))


def test_a_frozen_agent_that_comes_back_is_kept_out_by_journal_and_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alone suffices; with neither, what it was about to do is done."""

    def admits(_fence: Fence, _epoch: int, _controller: int) -> bool:
        return True

    def nothing(_self: object, *_arguments: int) -> None:
        return

    monkeypatch.setattr(Fence, "admits", admits)
    monkeypatch.setattr(Fence, "require_run", nothing)
    monkeypatch.setattr(Journal, "_check_unmoved", nothing)
    caught(
        [
            "two-running",
            "lost-write",
            "run-before-record",
            "journal-went-back",
            "none-running",
            "freed-last-copy",
            "next-migration",
        ],
        seeds_of(Kind.REPLACE_SOURCE_AGENT, Kind.REPLACE_DEST_AGENT),
    )
