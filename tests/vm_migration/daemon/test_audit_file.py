"""The audit log: whole lines, only ever appended, on the disk when an operator's word is acted upon."""

import asyncio
import json
import os
import threading
from pathlib import Path

import pytest

from vm_migration.daemon import audit_file as module
from vm_migration.daemon.audit_file import AuditFile, audit_file
from vm_migration.errors import InvalidInput
from vm_migration.link.audit import Entry
from vm_migration.telemetry.counts import LOST_AUDIT_LINES


def entry(call: str = "Source/Begin", machine: str = "m") -> Entry:
    return Entry(
        who="viaduct://home/operator/anna",
        address="ipv4:10.0.0.9:1",
        call=call,
        machine=machine,
        attempt="a",
        epoch=7,
        term=1,
        detail="",
        outcome="done",
    )


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_a_document_with_its_time_and_process(tmp_path: Path) -> None:
    path = tmp_path / "state" / "audit.jsonl"
    file = AuditFile(path, "viaduct-dest-agent", clock=lambda: 1_767_323_045.5)
    file.write(entry())
    file.close()
    assert lines(path) == [
        {
            "schema": "viaduct.audit.v1",
            "time": "2026-01-02T03:04:05.500000Z",
            "process": "viaduct-dest-agent",
            "who": "viaduct://home/operator/anna",
            "address": "ipv4:10.0.0.9:1",
            "call": "Source/Begin",
            "machine": "m",
            "attempt": "a",
            "epoch": 7,
            "term": 1,
            "detail": "",
            "outcome": "done",
            "code": "",
        }
    ]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_was_written_before_is_kept_and_two_daemons_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    files = [AuditFile(path, name) for name in ("source", "dest")]

    def many(file: AuditFile) -> None:
        for number in range(300):
            file.write(entry(machine=f"{number}" * 20))

    threads = [threading.Thread(target=many, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for file in files:
        file.close()
    for name in ("source", "dest"):
        mine = [line["machine"] for line in lines(path) if line["process"] == name]
        assert mine == [f"{number}" * 20 for number in range(300)]


def test_a_file_that_was_moved_away_is_left_and_another_one_begun(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.jsonl", tmp_path / "audit.jsonl.1"
    file = AuditFile(path, "it")
    file.write(entry(machine="before"))
    path.rename(old)
    file.write(entry(machine="after"))
    file.close()
    assert ([line["machine"] for line in lines(old)], [line["machine"] for line in lines(path)]) == (
        ["before"],
        ["after"],
    )


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "audit.jsonl"
    path.touch()
    path.chmod(mode)
    with pytest.raises(InvalidInput) as caught:
        AuditFile(path, "it")
    assert caught.value.code == "audit-writable"


def test_a_place_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path / "a-file" / "audit.jsonl", tmp_path, tmp_path / "link"):
        with pytest.raises(InvalidInput) as caught:
            AuditFile(path, "it")
        assert caught.value.code == "audit-unwritable"


def test_a_full_disk_stops_nobody_and_what_was_torn_stays_a_line_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before = tmp_path / "audit.jsonl", sum(LOST_AUDIT_LINES.read().values())
    file, write = AuditFile(path, "it"), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, text: write(descriptor, text[:30]))
    file.write(entry(machine="torn"))
    monkeypatch.setattr(os, "write", _full)
    file.write(entry(machine="lost"))
    monkeypatch.setattr(os, "write", write)
    file.write(entry(machine="whole"))
    file.close()
    torn, whole = path.read_text().splitlines()
    assert len(torn) == 30
    assert json.loads(whole)["machine"] == "whole"
    assert sum(LOST_AUDIT_LINES.read().values()) == before + 2


def _full(_descriptor: int, _text: bytes) -> int:
    raise OSError(28, "No space left on device")


async def test_a_word_is_on_the_disk_at_once_and_other_lines_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = threading.Event()
    times: list[int] = []

    def flush(descriptor: int) -> None:
        times.append(descriptor)
        flushed.set()

    monkeypatch.setattr(os, "fdatasync", flush)
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.01)
    async with audit_file(tmp_path / "audit.jsonl", "it") as file:
        file.write(entry("Destination/Take"))
        assert times
        flushed.clear()
        times.clear()
        file.write(entry("Source/Begin"))
        assert await asyncio.to_thread(flushed.wait, 10)
