"""What a folder is on, and whether a suspended machine can be left there."""

import os
from pathlib import Path

import pytest

from vmm.update import file_systems
from vmm.update.file_systems import kind_of_file_system, why_nothing_beside


def test_the_kernel_says_what_a_folder_is_on(tmp_path: Path) -> None:
    assert kind_of_file_system(Path("/proc/self")) == "proc"
    assert kind_of_file_system(tmp_path)


def test_a_file_can_be_written_beside_ram_and_nothing_is_to_find_out(tmp_path: Path) -> None:
    assert why_nothing_beside(tmp_path / "ram") == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_has_memory_only_keeps_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_systems, "kind_of_file_system", lambda _: "hugetlbfs")
    assert "hugetlbfs, which has no file but memory" in why_nothing_beside(tmp_path / "ram")


def test_a_folder_that_the_process_may_not_write_to_keeps_no_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "may not write" in why_nothing_beside(tmp_path / "missing" / "ram")
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write wherever it is not read-only
    assert "may not write" in why_nothing_beside(tmp_path / "ram")


def test_what_cannot_be_found_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(_: Path) -> str:
        raise PermissionError("mountinfo")

    monkeypatch.setattr(file_systems, "kind_of_file_system", hidden)
    assert "cannot be found out: mountinfo" in why_nothing_beside(tmp_path / "ram")
