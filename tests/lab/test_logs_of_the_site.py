import json
from pathlib import Path

import pytest

from lab.through_agents.logs import Logs


def line(level: str, event: str = "something") -> str:
    return json.dumps({"level": level, "event": event}) + "\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "host-a" / "agent.log"
    path.parent.mkdir()
    path.touch()
    return path


def add(path: Path, text: str) -> None:
    with path.open("a") as log:
        log.write(text)


def test_only_what_is_loud_is_a_complaint_and_once_only(tmp_path: Path, log: Path) -> None:
    logs = Logs(tmp_path)
    add(log, line("info") + line("warning") + line("debug") + line("error") + line("critical") + "\n")
    loud = tuple(f"agent.log: {line(level).strip()}" for level in ("warning", "error", "critical"))
    assert logs.new_complaints() == loud
    assert logs.new_complaints() == ()
    add(log, line("error", "later"))
    assert logs.new_complaints() == (f"agent.log: {line('error', 'later').strip()}",)


@pytest.mark.parametrize("text", ["Traceback (most recent call last):", "[1, 2]", '"error"', "7", "{torn"])
def test_what_is_no_log_line_is_a_complaint(tmp_path: Path, log: Path, text: str) -> None:
    add(log, f"{text}\n")
    assert Logs(tmp_path).new_complaints() == (f"agent.log: {text}",)


@pytest.mark.parametrize(("level", "loud"), [("info", 0), ("error", 1)])
def test_a_line_is_judged_when_it_is_whole(tmp_path: Path, log: Path, level: str, loud: int) -> None:
    logs, whole = Logs(tmp_path), line(level)
    for letter in whole[:-1]:
        add(log, letter)
        assert logs.new_complaints() == ()
    add(log, whole[-1])
    assert len(logs.new_complaints()) == loud
    assert logs.new_complaints() == ()


def test_a_letter_may_be_torn_too(tmp_path: Path, log: Path) -> None:
    logs, data = Logs(tmp_path), "Störung\n".encode()
    for number in range(len(data)):
        with log.open("ab") as file:
            file.write(data[number : number + 1])
        assert logs.new_complaints() == (("agent.log: Störung",) if number == len(data) - 1 else ())


def test_logs_that_come_later_are_read_too_and_other_files_are_not(tmp_path: Path, log: Path) -> None:
    logs = Logs(tmp_path)
    assert logs.new_complaints() == ()
    (tmp_path / "vmm.log").write_text(line("warning"))
    (tmp_path / "vmm.txt").write_text(line("warning"))
    assert logs.new_complaints() == (f"vmm.log: {line('warning').strip()}",)
