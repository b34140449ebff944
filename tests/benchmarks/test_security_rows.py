"""What TLS costs, from samples that never were: whose throughput is held against whose."""

import msgspec
import pytest

from benchmarks import security
from benchmarks.beside.sample import Sample
from benchmarks.beside.scenarios import GRPC, PLAIN_READY, PLAINTEXT, SECURED, SECURITY, named

TURNS = 3
MS = {GRPC.name: 200.0, PLAINTEXT.name: 100.0, PLAIN_READY.name: 50.0, SECURED[0].name: 400.0}


def played() -> list[Sample]:
    """Return a run in which ours tell how long their bytes took, and QEMU how long it all took."""
    samples = []
    for turn in range(TURNS + 1):
        for who, ms in MS.items():
            bulk = {"bulk_ms": ms} if who.startswith("viaduct") else {"total_ms": ms}
            made = Sample(who=who, turn=turn, outcome="completed", total_ms=1e6, wire_bytes=1 << 30)
            samples.append(msgspec.structs.replace(made, **bulk))
    return samples


def test_each_throughput_is_held_against_the_other_one_of_its_turn() -> None:
    rows = {row.name: row for row in security.rows_of(played())}
    assert rows[security.OURS_OVER_ITSELF].values == (0.5,) * TURNS
    assert rows[security.OURS_OVER_ITSELF].reached is False
    assert rows[security.QEMU_OVER_ITSELF].values == (0.125,) * TURNS
    assert rows[security.OURS_OVER_QEMU].values == (2.0,) * TURNS
    assert {row.reached for row in rows.values()} == {False, None}


@pytest.mark.parametrize("who", MS)
def test_a_movement_that_did_not_complete_is_no_measure(who: str) -> None:
    samples = played()
    bad = next(at for at, each in enumerate(samples) if each.who == who and each.turn == 1)
    samples[bad] = msgspec.structs.replace(samples[bad], outcome="failed", why="it broke")
    with pytest.raises(RuntimeError, match=f"{who}.*it broke"):
        security.rows_of(samples)


def test_one_of_ours_has_no_tls_and_everybody_has_a_name_of_his_own() -> None:
    assert named("security") is SECURITY
    assert [SECURITY.secures(mode) for mode in SECURITY.ours] == [True, False]
    assert [mode.tls for mode in SECURITY.peers] == [False, True]
    assert {*(mode.name for mode in SECURITY.ours), *(mode.name for mode in SECURITY.peers)} == set(MS)
