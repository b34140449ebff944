"""How long a round takes in which pages that are dirty again wait (vm_migration.transfer.hot_pages).

What may be dirtied is sent last; of that, what is dirty again at its turn takes no time, and half of a round at most:

::

    what is never dirtied            what may be
    |-------------------------------|----------------|       dt = dx / rate          dt = (clean(t) / late) dx / rate

What is clean yet after a time is given. Of the first round it is the share of all that can be dirtied, the span, that
was not written: any page is as good as any other. Of a later one it is what was written in the round before and not
since, and that is known without knowing the guest: what is written in both together, less what is written since. So a
guest that writes all its pages in turn writes none of the last ones again, and one that writes at random does.

Between moments that are fixed, whatever the round, what is clean is taken as a straight line. So where more is clean at
every moment no round is shorter, nor where more is sent, or slower.
"""

import math
from collections.abc import Callable
from typing import Final

_FIRST_MS: Final = 1.0
_GROWS: Final = 1.5
"""The moments: nought, 1 ms, and each half as late again as the one before."""
_LEVEL: Final = 1e-12
"""A line that falls by less than this share of itself over what is left."""


def round_ms(
    announced_bytes: float, late_bytes: float, clean_after: Callable[[float], float], rate_bytes_per_s: float
) -> float:
    """Return how long a round of so many bytes takes, in milliseconds.

    Args:
        announced_bytes: What the round's bitmap names.
        late_bytes: Of that, what may be dirtied again.
        clean_after: Of what is late, the bytes that are clean so many milliseconds after the round has begun.
        rate_bytes_per_s: What the link carries.
    """
    least = announced_bytes * 500 / rate_bytes_per_s
    at = (announced_bytes - late_bytes) * 1000 / rate_bytes_per_s
    left = 1.0  # of what is late

    def pace(ms: float) -> float:
        return max(0.0, min(clean_after(ms), late_bytes)) * 1000 / rate_bytes_per_s

    low, high = _moments(at)
    while left > 0 and late_bytes > 0:
        begins, ends = pace(low), pace(high)
        falls = (begins - ends) / (high - low)
        now = begins - falls * (at - low)
        if now <= 0:
            break
        if abs(falls) * left <= _LEVEL:
            takes, needs = now * left, (high - at) / now
        else:  # from here to the end of the line dt / dx = now - falls (t - at), which makes an exponential
            takes = -now * math.expm1(-falls * left) / falls
            part = falls * (high - at) / now
            needs = -math.log1p(-part) / falls if part < 1 else math.inf
        if needs >= left:
            at += takes
            break
        left, at, low, high = left - needs, high, high, high * _GROWS
    return max(at, least)


def _moments(ms: float) -> tuple[float, float]:
    """Return the moments between which one lies."""
    if ms < _FIRST_MS:
        return 0.0, _FIRST_MS
    low = _FIRST_MS * _GROWS ** math.floor(math.log(ms / _FIRST_MS, _GROWS))
    while low > ms:
        low /= _GROWS
    while low * _GROWS <= ms:
        low *= _GROWS
    return low, low * _GROWS
