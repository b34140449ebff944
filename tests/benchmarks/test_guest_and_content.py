"""What both sides move: the bytes of RAM, and the guest that QEMU runs."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.beside.content import RUN, Content, kinds, write_content
from benchmarks.beside.guest import MOST_RATE, GuestLoad, build, stride

MIB = 1 << 20


@given(st.integers(1, 1 << 22))
def test_a_stride_visits_every_page_before_it_visits_one_again(pages: int) -> None:
    assert math.gcd(stride(pages), pages) == 1


def test_a_rate_that_the_guest_cannot_count_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        GuestLoad(MOST_RATE + 4096).symbols()


@pytest.mark.parametrize("load", [GuestLoad(), GuestLoad(60 * MIB, 200 * MIB)])
def test_the_guest_has_a_multiboot_header_where_a_loader_looks_for_it(tmp_path: Path, load: GuestLoad) -> None:
    kernel = build(tmp_path, load).read_bytes()
    at = kernel.find((0x1BADB002).to_bytes(4, "little"))
    assert 0 < at < 8192
    assert at % 4 == 0


@pytest.mark.parametrize("content", ["incompressible", "booted", "mostly-zero"])
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, content: Content) -> None:
    for name in ("one", "other"):
        write_content(tmp_path / name, 2 * MIB, content, seed=7)
    assert (tmp_path / "one").stat().st_size == 2 * MIB
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_booted_systems_ram_is_a_third_zero_a_third_text_and_the_rest_mixed() -> None:
    listed = kinds(300, "booted", np.random.default_rng(1))
    assert {kind: listed.count(kind) for kind in set(listed)} == {"zero": 100, "text": 100, "mixed": 100}


def test_zero_runs_of_a_mostly_zero_ram_are_holes(tmp_path: Path) -> None:
    write_content(tmp_path / "image", 16 * MIB, "mostly-zero", seed=1)
    runs = np.fromfile(tmp_path / "image", dtype=np.uint8).reshape(-1, RUN)
    assert int(np.count_nonzero(runs.any(axis=1))) == len(runs) // 16
    assert (tmp_path / "image").stat().st_blocks * 512 <= 2 * MIB
