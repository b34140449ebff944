from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.assembly.quantity_text import (
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)

quantities = st.one_of(
    st.integers(0, (1 << 63) - 1),
    st.integers(0, 1 << 20).map(lambda n: n << 12),
    st.integers(0, 9999).map(lambda n: n * 10**6),
)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_size, "512MiB", 512 << 20),
        (parse_size, "1GiB", 1 << 30),
        (parse_size, "1.5GiB", 3 << 29),
        (parse_size, "4096", 4096),
        (parse_size, "4096 B", 4096),
        (parse_size, "64kB", 64_000),
        (parse_size, "64KB", 64_000),
        (parse_size, "2MB", 2_000_000),
        (parse_size, "0", 0),
        (parse_rate, "100MiB/s", 100 << 20),
        (parse_rate, "1Gbit/s", 125_000_000),
        (parse_rate, "50MB/s", 50_000_000),
        (parse_rate, "0.5kbit/s", 62),
        (parse_rate, "4096", 4096),
        (parse_duration, "300ms", 300_000_000),
        (parse_duration, "10m", 600_000_000_000),
        (parse_duration, "1.5s", 1_500_000_000),
        (parse_duration, "2h", 7_200_000_000_000),
    ],
)
def test_text_of_people_is_read(parse: Callable[[str], int], text: str, value: int) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_size, ""),
        (parse_size, "MiB"),
        (parse_size, "-1MiB"),
        (parse_size, "1mib"),
        (parse_size, "1MiB/s"),
        (parse_size, "1e9"),
        (parse_size, "1.GiB"),
        (parse_size, "inf"),
        (parse_size, "9" * 5000),
        (parse_size, "99999999999TiB"),
        (parse_size, "\u0663MiB"),
        (parse_rate, "100MiB"),
        (parse_rate, "1GBIT/s"),
        (parse_duration, "300"),
        (parse_duration, "10 min"),
    ],
)
def test_other_text_is_refused(parse: Callable[[str], int], text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a|too large"):
        parse(text)


@settings(max_examples=60)
@given(quantities)
def test_what_is_written_reads_back_exactly(value: int) -> None:
    assert parse_size(format_size(value)) == value
    assert parse_rate(format_rate(value)) == value
    assert parse_duration(format_duration(value)) == value


def test_exact_text_is_short() -> None:
    assert format_size(1 << 30) == "1GiB"
    assert format_size(3 << 29) == "1.5GiB"
    assert format_size(0) == "0B"
    assert format_rate(100 << 20) == "100MiB/s"
    assert format_duration(300_000_000) == "300ms"
    assert format_duration(600_000_000_000) == "10m"
