"""Lanes of targets: side by side, what each says in one piece, and all that fails is named."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.processes import ended
from tools import side_by_side

MAKE = """#!/bin/sh
. "{folder}/$2"
"""


@pytest.fixture
def make(tmp_path: Path) -> Path:
    """A program in the place of make, whose targets are scripts in its folder."""
    program = tmp_path / "make"
    program.write_text(MAKE.format(folder=tmp_path))
    program.chmod(0o755)
    return program


def lanes(make: Path, *written: str) -> tuple[int, str]:
    """Run lanes; return how they ended and what was said, without how long each target took."""
    command = (sys.executable, side_by_side.__file__, str(make), *written)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.returncode, re.sub(r"(passed|failed), \d+ s\n", r"\1\n", done.stdout)


def target(make: Path, name: str, script: str) -> None:
    make.with_name(name).write_text(script)


def test_lanes_run_side_by_side(make: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    target(make, "writes", f"echo word > {tmp_path}/pipe")
    target(make, "reads", f"cat {tmp_path}/pipe")
    status, said = lanes(make, "writes", "reads")
    assert (status, "word\n" in said) == (0, True)


def test_what_a_target_says_is_in_one_piece_under_how_it_ended(make: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    target(make, "long", f"echo first; cat {tmp_path}/pipe; echo last")
    target(make, "short", f"echo alpha; echo beta >&2; echo go > {tmp_path}/pipe")
    target(make, "next", "echo gamma")
    _, said = lanes(make, "long", "short next")
    assert said.startswith("first\n")
    assert "\n--- short: passed\nalpha\nbeta\n" in said
    assert "\n--- next: passed\ngamma\n" in said


def test_a_target_that_fails_ends_its_lane_and_no_other(make: Path) -> None:
    target(make, "wrong", "echo why; exit 2")
    target(make, "never", "echo never")
    target(make, "right", "echo right")
    target(make, "late", "exit 1")
    status, said = lanes(make, "right late", "wrong never")
    assert status == 1
    assert "\n--- wrong: failed\nwhy\n" in said
    assert "--- right: passed\n" in said
    assert "never" not in said
    assert said.endswith("\nNot everything passed: late, wrong\n")


def test_what_comes_afterwards_begins_when_all_before_it_have_ended_however(make: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    target(make, "wrong", "exit 2")
    target(make, "slow", f"cat {tmp_path}/pipe; touch {tmp_path}/ended")
    target(make, "quick", f"echo go > {tmp_path}/pipe")
    for name in ("later", "beside"):
        target(make, name, f"test -e {tmp_path}/ended && echo {name}")
    status, said = lanes(make, "wrong", "slow", "quick", "--", "later", "beside")
    assert status == 1
    assert "\nlater\n" in said
    assert "\n--- beside: passed\nbeside\n" in said
    assert said.endswith("\nNot everything passed: wrong\n")


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_ends_with_it_and_nothing_more_begins(make: Path, tmp_path: Path, told: signal.Signals) -> None:
    for name in ("one", "other"):
        os.mkfifo(tmp_path / f"{name}-pipe")
        target(make, name, f"echo $$ > {tmp_path}/{name}-pipe; exec sleep 1000")
    target(make, "next", f"touch {tmp_path}/begun")
    command = (sys.executable, side_by_side.__file__, str(make), "one next", "other next", "--", "next")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        began = [int((tmp_path / f"{name}-pipe").read_text()) for name in ("one", "other")]
        running.send_signal(told)
        said, _ = running.communicate(timeout=60)
    assert running.returncode == side_by_side.INTERRUPTED
    assert "--- other: failed" in said
    assert all(ended(pid, 60.0) for pid in began)
    assert not (tmp_path / "begun").exists()
