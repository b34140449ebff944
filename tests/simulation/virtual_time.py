"""A scenario from beginning to end on a virtual loop of its own, which takes no time."""

from collections.abc import Callable, Coroutine
from typing import TypeVar

from tests.simulation.virtual_loop import VirtualLoop

_Result = TypeVar("_Result")


def in_virtual_time(scenario: Callable[[VirtualLoop], Coroutine[object, object, _Result]]) -> _Result:
    """Run a scenario, given its loop, and return what it comes to; nothing of it is left."""
    loop = VirtualLoop(1)
    try:
        return loop.run_until_complete(scenario(loop))
    finally:
        loop.end()
        loop.close()
