"""A row of bars as one line of text. Pure."""

from collections.abc import Sequence
from typing import Final

BLOCKS: Final = "▁▂▃▄▅▆▇█"
PLAIN: Final = "_.-=+*%#"
"""For terminals that have no blocks."""


def sparkline(values: Sequence[float], width: int, bars: str = BLOCKS, *, full: float = 0.0) -> str:
    """Return the last values as at most `width` bars; what is 0 or less is the lowest.

    Args:
        values: In the order in which they came.
        width: Most characters.
        bars: The characters, the lowest first.
        full: What the full bar stands for, where that is more than the highest value shown.
    """
    shown = values[-width:] if width > 0 else ()
    most = max((full, *shown))
    if most <= 0:
        return bars[0] * len(shown)
    top = len(bars) - 1
    return "".join(bars[round(max(0.0, value) / most * top)] for value in shown)
