"""The migration state machine: every cell of semantics 7.3 for every set of flags, and the vectors V9."""

import errno
from collections import deque
from itertools import pairwise

import pytest

from vfio_host.devices.migration_state import next_state, path, supported
from vfio_host.errors import CallRefused
from vfio_host.interface.numbers import DeviceState as S
from vfio_host.interface.numbers import MigrationFlags as F

ALL = F.STOP_COPY | F.P2P | F.PRE_COPY
FLAGS = [F(1), F(3), F(5), F(7)]

TABLE = """
STOP          STOP         RUNNING_P2P  STOP_COPY    RESUMING     RUNNING_P2P  RUNNING_P2P  RUNNING_P2P
RUNNING       RUNNING_P2P  RUNNING      RUNNING_P2P  RUNNING_P2P  RUNNING_P2P  PRE_COPY     RUNNING_P2P
PRE_COPY      RUNNING      RUNNING      PRE_COPY_P2P RUNNING      RUNNING      PRE_COPY     PRE_COPY_P2P
PRE_COPY_P2P  RUNNING_P2P  RUNNING_P2P  STOP_COPY    RUNNING_P2P  RUNNING_P2P  PRE_COPY     PRE_COPY_P2P
STOP_COPY     STOP         STOP         STOP_COPY    STOP         STOP         ERROR        ERROR
RESUMING      STOP         STOP         STOP         RESUMING     STOP         STOP         STOP
RUNNING_P2P   STOP         RUNNING      STOP         STOP         RUNNING_P2P  RUNNING      PRE_COPY_P2P
ERROR         ERROR        ERROR        ERROR        ERROR        ERROR        ERROR        ERROR
"""
COLUMNS = [S.STOP, S.RUNNING, S.STOP_COPY, S.RESUMING, S.RUNNING_P2P, S.PRE_COPY, S.PRE_COPY_P2P]
ROWS = [line.split() for line in TABLE.strip().splitlines()]
CELLS = {(S[row[0]], to): S[cell] for row in ROWS for to, cell in zip(COLUMNS, row[1:], strict=True)}

ARCS_ALWAYS = {(S.RESUMING, S.STOP), (S.STOP, S.RESUMING), (S.STOP, S.STOP_COPY), (S.STOP_COPY, S.STOP)}


def both(a: S, b: S) -> set[tuple[S, S]]:
    return {(a, b), (b, a)}


def arcs(flags: F) -> set[tuple[S, S]]:
    """Semantics 7.2, read independently of the table."""
    found = set(ARCS_ALWAYS)
    p2p, pre = F.P2P in flags, F.PRE_COPY in flags
    found |= both(S.RUNNING, S.RUNNING_P2P) | both(S.RUNNING_P2P, S.STOP) if p2p else both(S.RUNNING, S.STOP)
    if pre:
        found |= both(S.RUNNING, S.PRE_COPY)
        found |= set() if p2p else {(S.PRE_COPY, S.STOP_COPY)}
    if pre and p2p:
        found |= both(S.PRE_COPY, S.PRE_COPY_P2P) | both(S.RUNNING_P2P, S.PRE_COPY_P2P)
        found |= {(S.PRE_COPY_P2P, S.STOP_COPY)}
    return found


def offered(state: S, flags: F) -> bool:
    needs = {S.RUNNING_P2P: F.P2P, S.PRE_COPY: F.PRE_COPY, S.PRE_COPY_P2P: F.PRE_COPY | F.P2P}
    return state is not S.ERROR and needs.get(state, F(0)) & flags == needs.get(state, F(0))


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("start", list(S))
@pytest.mark.parametrize("target", list(S))
def test_every_cell_for_every_set_of_flags(start: S, target: S, flags: F) -> None:
    expected: S | None = None
    if offered(start, flags) and offered(target, flags):
        expected = CELLS[start, target]
        while expected is not S.ERROR and not offered(expected, flags):
            expected = CELLS[expected, target]
    if expected is None or expected is S.ERROR:
        with pytest.raises(CallRefused) as refusal:
            next_state(start, target, flags)
        assert refusal.value.errno == errno.EINVAL
        with pytest.raises(CallRefused):
            path(start, target, flags)
        return
    assert next_state(start, target, flags) is expected
    way = path(start, target, flags)
    assert way[0] is start
    assert way[-1] is target
    for arc in pairwise(way):
        assert arc in arcs(flags), f"{arc} is no direct arc"
    saving = {S.STOP_COPY, S.PRE_COPY, S.PRE_COPY_P2P}
    if start not in saving and target not in saving:
        assert not saving & set(way)


@pytest.mark.parametrize("flags", FLAGS)
def test_paths_are_no_longer_than_any_that_saves_nothing_on_the_way(flags: F) -> None:
    """Between states that neither save, the kernel's way is the shortest."""
    quiet = [s for s in S if offered(s, flags) and s not in {S.STOP_COPY, S.PRE_COPY, S.PRE_COPY_P2P}]
    for start in quiet:
        distance, queue = {start: 0}, deque([start])
        while queue:
            at = queue.popleft()
            for a, b in arcs(flags):
                if a is at and b in quiet and b not in distance:
                    distance[b] = distance[at] + 1
                    queue.append(b)
        for target in quiet:
            assert len(path(start, target, flags)) - 1 == distance[target]


@pytest.mark.parametrize(
    ("flags", "states"),
    [
        (F.STOP_COPY | F.P2P, (S.RUNNING, S.RUNNING_P2P, S.STOP, S.STOP_COPY)),
        (F.STOP_COPY, (S.RUNNING, S.STOP, S.STOP_COPY)),
        (ALL, (S.PRE_COPY, S.PRE_COPY_P2P, S.STOP_COPY)),
        (ALL, (S.PRE_COPY, S.RUNNING, S.RUNNING_P2P, S.STOP)),
        (F.STOP_COPY | F.P2P, (S.RESUMING, S.STOP, S.RUNNING_P2P, S.RUNNING)),
    ],
)
def test_v9_paths(flags: F, states: tuple[S, ...]) -> None:
    assert path(states[0], states[-1], flags) == states


def test_error_is_never_supported() -> None:
    assert not any(supported(S.ERROR, flags) for flags in FLAGS)
