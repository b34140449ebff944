import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.process.fence import Fence, FencedOff


def test_a_newer_controller_cuts_the_older_off() -> None:
    fence = Fence().attach(1, 1)
    assert fence.admits(1, 1)
    fence = fence.attach(1, 2)
    assert not fence.admits(1, 1)
    with pytest.raises(FencedOff):
        fence.attach(1, 1)


def test_the_same_controller_may_come_back() -> None:
    fence = Fence().attach(3, 4)
    assert fence.attach(3, 4) == fence


@given(st.lists(st.tuples(st.sampled_from(["attach", "release"]), st.integers(0, 5), st.integers(0, 5))))
def test_what_was_released_never_runs_again(steps: list[tuple[str, int, int]]) -> None:
    fence, released = Fence(), -1
    for kind, epoch, controller in steps:
        if kind == "release":
            fence, released = fence.release(epoch), max(released, epoch)
        else:
            try:
                fence = fence.attach(epoch, controller)
            except FencedOff:
                assert epoch < fence.epoch or controller < fence.controller
        for asked in range(7):
            if asked <= released:
                with pytest.raises(FencedOff):
                    fence.require_run(asked)
            else:
                fence.require_run(asked)
