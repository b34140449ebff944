"""Many of something, a part at a time: what one transaction, or one message, may hold."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")


def parts(items: Sequence[_Item], most: int) -> Iterator[Sequence[_Item]]:
    """Yield so many of some items at a time, in order."""
    for start in range(0, len(items), most):
        yield items[start : start + most]
