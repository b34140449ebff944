import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import set_up

LISTING = """# a comment
test   broker   sh
test   reader   no-such-program-here
bench  meter    no-such-program-either
"""


def test_packages_of_a_purpose_are_named_when_their_program_is_missing() -> None:
    assert set_up.missing_packages(LISTING, "test") == ["reader"]
    assert set_up.missing_packages(LISTING, "bench") == ["meter"]


def test_the_listing_of_this_project_is_complete() -> None:
    lines = set_up.SYSTEM_PACKAGES.read_text().splitlines()
    assert {line.split()[0] for line in lines if not line.startswith("#")} == {"test", "bench", "model", "deploy"}
    assert set_up.missing_packages(set_up.SYSTEM_PACKAGES.read_text(), "test") == []


def test_without_root_packages_are_named_in_two_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as ended:
        set_up.install_system_packages(["broker", "reader"], "test")
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "System packages are missing for test: broker reader",
        "As root: apt-get install broker reader",
    ]


def test_an_older_python_is_told_in_two_lines() -> None:
    pretend = "import sys, runpy; sys.version_info = (3, 10, 4); runpy.run_path(sys.argv[1])"
    command = [sys.executable, "-c", pretend, set_up.__file__]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 2
    assert "3.11 or later" in run.stderr


def test_nonsense_is_refused() -> None:
    with pytest.raises(SystemExit):
        set_up.main(["everything"])


def test_a_changed_lock_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set_up.locked("run")
    changed = tmp_path / "requirements.lock"
    changed.write_bytes(set_up.LOCKS["run"].read_bytes() + b"# one more line\n")
    monkeypatch.setitem(set_up.LOCKS, "run", changed)
    assert set_up.locked("run") != before
