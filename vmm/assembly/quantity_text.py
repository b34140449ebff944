"""Sizes, rates and durations as people write them: `512MiB`, `100MiB/s`, `1Gbit/s`, `300ms`.

Decimals are allowed; what is not a whole byte or nanosecond is rounded down. Every `format_*` writes text that its
`parse_*` reads back to the same value.
"""

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

_NUMBER: Final = re.compile(r"\s*(\d{1,19}(?:\.\d{1,19})?)\s*([A-Za-z]*(?:/s)?)\s*", re.ASCII)
_MAXIMUM: Final = 1 << 63

_BINARY: Final = {"TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
_SIZES: Final = _BINARY | {"kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "": 1}
_BITS: Final = {"bit": 1, "kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9, "Tbit": 10**12}
_RATES: Final = {
    **{f"{unit}/s": Fraction(factor) for unit, factor in _SIZES.items() if unit},
    **{f"{unit}/s": Fraction(factor, 8) for unit, factor in _BITS.items()},
    "": Fraction(1),
}
_DURATIONS: Final = {"h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}

SIZES_ALLOWED: Final = 'a size such as "4096", "512MiB", "1.5GiB" or "2GB"'
RATES_ALLOWED: Final = 'a rate such as "100MiB/s", "50MB/s" or "1Gbit/s"'
DURATIONS_ALLOWED: Final = 'a duration such as "300ms", "1.5s", "10m" or "2h"'


def parse_size(text: str) -> int:
    """Return bytes.

    Raises:
        ValueError: Not a size.
    """
    return _parse(text, _SIZES, "size", SIZES_ALLOWED)


def parse_rate(text: str) -> int:
    """Return bytes per second.

    Raises:
        ValueError: Not a rate.
    """
    return _parse(text, _RATES, "rate", RATES_ALLOWED)


def parse_duration(text: str) -> int:
    """Return nanoseconds; a unit is required.

    Raises:
        ValueError: Not a duration.
    """
    return _parse(text, _DURATIONS, "duration", DURATIONS_ALLOWED)


def format_size(size: int) -> str:
    """Return the shortest exact text of bytes."""
    return _format(size, _BINARY, "")


def format_rate(rate: int) -> str:
    """Return the shortest exact text of bytes per second."""
    return _format(rate, _BINARY, "/s")


def format_duration(nanoseconds: int) -> str:
    """Return the shortest exact text of nanoseconds."""
    return _format(nanoseconds, _DURATIONS, "")


def _parse(text: str, units: Mapping[str, int | Fraction], noun: str, allowed: str) -> int:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(f'"{text[:40]}" is not {allowed}')
    value = int(Fraction(match[1]) * units[match[2]])
    if value >= _MAXIMUM:
        raise ValueError(f'"{text[:40]}" is too large for a {noun}')
    return value


def _format(value: int, units: Mapping[str, int], suffix: str) -> str:
    if value < 0:
        raise ValueError(f"A quantity cannot be negative: {value}")
    smallest = min(units, key=lambda unit: units[unit])
    for unit, factor in units.items():
        thousandths = Fraction(value * 1000, factor)
        if value >= factor and thousandths.denominator == 1:
            whole, part = divmod(int(thousandths), 1000)
            decimals = f".{part:03d}".rstrip("0") if part else ""
            return f"{whole}{decimals}{unit}{suffix}"
    return f"{value}{smallest}{suffix}"
