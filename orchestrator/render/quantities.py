"""Quantities as people read them: three digits that matter and a unit."""

import math
from typing import Final

_BYTES: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Return bytes for people: `1.5 GiB`."""
    value = float(count)
    for unit in _BYTES[:-1]:
        if value < 1024:
            return _short(value, unit)
        value /= 1024
    return _short(value, _BYTES[-1])


def rate(per_second: float) -> str:
    """Return bytes a second for people."""
    return f"{size(per_second)}/s"


def span(milliseconds: float) -> str:
    """Return a time span for people: `42 ms`, `3.1 s`, `2 m 5 s`, `10 m`; `unknown` for one without an end."""
    if not math.isfinite(milliseconds):
        return "unknown"
    if milliseconds < 1000:
        return f"{milliseconds:.3g} ms" if milliseconds < 100 else f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} m {rest} s" if rest else f"{minutes} m"


def _short(value: float, unit: str) -> str:
    return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
