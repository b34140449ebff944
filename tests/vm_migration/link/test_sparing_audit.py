"""The audit log of a peer that is refused without end: bounded, and nothing that was done is left out."""

from hypothesis import given
from hypothesis import strategies as st

from vm_migration.link.audit import Entry, Outcome
from vm_migration.link.sparing_audit import LINES_AT_ONCE, LINES_PER_SECOND, SparingAudit
from vm_migration.telemetry.counts import WITHHELD_AUDIT_LINES

WHO = st.sampled_from(["viaduct://home/viewer/vera", "viaduct://home/host/host-a", "nobody"])


def entry(who: str, outcome: Outcome) -> Entry:
    return Entry(
        who=who, address="ipv4:10.0.0.9:1", call="Source/Begin", machine="", attempt="", epoch=0, term=0, detail="",
        outcome=outcome,
    )  # fmt: skip


def test_a_peer_that_is_refused_without_end_has_so_many_lines() -> None:
    written: list[Entry] = []
    now, before = 0.0, WITHHELD_AUDIT_LINES.read().get((), 0)
    audit = SparingAudit(written.append, lambda: now)
    for _ in range(5 * LINES_AT_ONCE):
        audit(entry("vera", "refused"))
    assert len(written) == LINES_AT_ONCE
    assert WITHHELD_AUDIT_LINES.read()[()] == before + 4 * LINES_AT_ONCE
    audit(entry("wim", "refused"))
    assert len(written) == LINES_AT_ONCE + 1
    now += 1 / LINES_PER_SECOND
    audit(entry("vera", "refused"))
    assert len(written) == LINES_AT_ONCE + 2


@given(st.lists(st.tuples(WHO, st.sampled_from(["done", "failed", "abandoned", "begun", "refused"])), max_size=200))
def test_whatever_may_have_been_done_has_its_line(calls: list[tuple[str, Outcome]]) -> None:
    written: list[Entry] = []
    audit = SparingAudit(written.append, lambda: 0.0)
    for _ in range(LINES_AT_ONCE):
        audit(entry("viaduct://home/viewer/vera", "refused"))
    del written[:]
    for who, outcome in calls:
        audit(entry(who, outcome))
    expected = [entry(who, outcome) for who, outcome in calls if outcome != "refused" or not who.endswith("vera")]
    assert written == expected
