"""`viaduct lab` that cannot be done as it was typed: two lines, an exit code, and with --json a document of its own."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from lab import command as lab_command
from lab import matrix as lab_matrix
from lab.document import LabRow, row_of
from lab.matrix import Say, rehearsed
from lab.observation import Observation
from lab.through_agents.scenario_run import Laboratory
from orchestrator.command import run, run_here
from tests.lab.rehearsed_machines import small_scenario
from vm_migration.errors import InternalError

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
Captured = pytest.CaptureFixture[str]
SMALL = """
name = "small"
title = "A small machine"
[machine]
memory.size = "64MiB"
[[machine.device]]
name = "qat0"
model = "qat"
address = "00:04.0"
dma_rate = 0
[expect]
outcome = "completed"
"""
FAULTY = SMALL.replace('"A small machine"', "7").replace("memory.size", "memory.sise").replace("completed", "splendid")


def refused(words: list[str], captured: Captured) -> str:
    """Run a wrong command line as text and as JSON; return what it complains of."""
    assert run(["lab", *words]) == 2
    said = captured.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"error: \S.+\n  fix: [A-Z].+\n", said.err), said.err
    assert run(["lab", *words, "--json"]) == 2
    as_json = captured.readouterr()
    document = json.loads(as_json.out)
    Draft202012Validator(json.loads((SCHEMAS / "viaduct.error.v1.json").read_text())).validate(document)
    assert (document["exit_code"], as_json.err) == (2, said.err)
    assert document["message"] in said.err
    return said.err


def file_of(folder: Path, text: str | bytes) -> str:
    path = folder / "tried.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run"], "SCENARIO"),
        (["run", "--in-process", "no-such"], 'no scenario "no-such"'),
        (["run", "no-such"], "viaduct lab list"),
        (["run", "--in-process", "cells", "/"], 'no scenario "/"'),
        (["run", "--quickly", "cells"], "--quickly"),
        (["matrix", "cells"], "cells"),
        (["exhibit"], "exhibit"),
    ],
)
def test_wrong_words(words: list[str], says: str, capsys: Captured) -> None:
    assert says in refused(words, capsys)


@pytest.mark.parametrize("text", ["= 7", b"\xff\xfe\x00", "name = 'x' name = 'y'"])
def test_a_file_that_is_no_toml_is_named(text: str | bytes, tmp_path: Path, capsys: Captured) -> None:
    file = file_of(tmp_path, text)
    said = refused(["run", "--in-process", file], capsys)
    assert "Not TOML" in said
    assert file in said


def test_all_faults_come_at_once_with_file_and_key(tmp_path: Path, capsys: Captured) -> None:
    file = file_of(tmp_path, FAULTY)
    said = refused(["run", "--in-process", file], capsys)
    for words in (file, "title", "memory.sise", "expect.outcome", '"splendid"', "completed"):
        assert words in said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("64MiB", "100KiB"), "memory.size"),
        (('"00:04.0"', '"00:04.0"\nbackend = "type1"\ndevice_dirty_tracking = true'), "device_dirty_tracking"),
        (("[machine]", "[machine]\nviommu = { caching_mode = false }"), "viommu.caching_mode"),
        (("[expect]", '[[action]]\nat = "round-1"\ndo = "block"\ndevice = "qat7"\n[expect]'), "action[0].device"),
    ],
)
def test_a_machine_that_cannot_be(change: tuple[str, str], says: str, tmp_path: Path, capsys: Captured) -> None:
    text = SMALL.replace(*change)
    assert text != SMALL
    assert says in refused(["run", "--in-process", file_of(tmp_path, text)], capsys)


@pytest.mark.parametrize("machine", ["", 'viommu = { model = "none" }'])
@pytest.mark.parametrize("do", ["churn", "calm", "block", "take"])
def test_a_guest_does_what_it_can_and_says_what_it_cannot(
    machine: str, do: str, tmp_path: Path, capsys: Captured
) -> None:
    action = f'[run]\nwork_ms = 5\n[[action]]\nat = "start"\ndo = "{do}"\n'
    file = file_of(
        tmp_path, SMALL.replace("[expect]", f"{action}[expect]").replace("[machine]", f"[machine]\n{machine}")
    )
    if not machine and do in ("block", "take"):
        assert run(["lab", "run", "--in-process", file]) == 0
    else:
        assert f"Guest refuses to {do}: " in refused(["run", "--in-process", file], capsys)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("[run]\nin_process_only = true\n", "run.in_process_only"),
        ('[run]\nkind = "dirty-rate"\n', "window"),
        ("[run]\nsparse = true\n", "memory"),
        ('[run]\nhost_page_size = "64KiB"\n', "memory"),
        ('[[action]]\nat = "tracking"\ndo = "fail-query"\n', "has the host fail"),
        ('[[action]]\nat = "pausing"\ndo = "quiet"\n', "between harvest and pause"),
    ],
)
def test_what_agents_cannot_show_starts_none_and_says_what_to_do(
    change: str, says: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def nothing(memory_budget: int) -> AsyncIterator[Laboratory]:
        raise AssertionError(f"A site was started with {memory_budget} bytes")
        yield

    monkeypatch.setattr(lab_matrix, "laboratory", nothing)
    said = refused(["run", file_of(tmp_path, SMALL.replace("[expect]", f"{change}[expect]"))], capsys)
    assert "small runs in process only: " in said
    assert says in said
    assert said.endswith("fix: Add --in-process\n")


def test_disagreements_come_with_json_too(tmp_path: Path, capsys: Captured) -> None:
    fine, wrong = (file_of(tmp_path, SMALL), str(tmp_path / "wrong.toml"))
    Path(wrong).write_text(SMALL.replace("completed", "failed").replace('"small"', '"wrong"'))
    assert run(["lab", "run", "--in-process", "--json", fine, wrong]) == 8
    said = capsys.readouterr()
    document = json.loads(said.out)
    Draft202012Validator(json.loads((SCHEMAS / "viaduct.lab.v1.json").read_text())).validate(document)
    assert (document["ok"], [row["ok"] for row in document["rows"]]) == (False, [True, False])
    assert document["rows"][1]["disagreements"] == ["completed, not failed"]
    assert said.err.startswith("error: 1 of 2 scenarios are not as expected: wrong\n  fix: ")


def test_a_scenario_that_is_named_twice_is_run_once(tmp_path: Path, capsys: Captured) -> None:
    file = file_of(
        tmp_path, SMALL.replace("[expect]", '[run]\nkind = "plan"\n[expect]').replace("completed", "allowed")
    )
    assert run(["lab", "run", "--in-process", "--json", file, file]) == 0
    assert [row["scenario"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["small"]


@pytest.mark.parametrize(("outcome", "exit_code"), [("completed", 0), ("blocked", 8)])
async def test_the_matrix_tells_by_its_exit_code(
    outcome: str, exit_code: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = small_scenario()

    async def matrix(say: Say) -> tuple[LabRow, ...]:
        say(scenario.name)
        return (row_of(scenario, scenario.document.expect, Observation(outcome=outcome), "agents"),)

    monkeypatch.setattr(lab_command, "matrix", matrix)
    assert await run_here(["lab", "matrix", "--json"]) == exit_code
    said = capsys.readouterr()
    document = json.loads(said.out)
    Draft202012Validator(json.loads((SCHEMAS / "viaduct.lab.v1.json").read_text())).validate(document)
    assert (document["ok"], "not as expected" in said.err) == (exit_code == 0, exit_code == 8)
    assert "runs small" not in said.err  # no terminal hears of progress


async def test_a_rehearsal_that_gives_no_result_is_our_fault(capsys: Captured) -> None:
    with pytest.raises(InternalError, match="ended with 2 and no result"):
        await rehearsed(["no-such"])
    assert "no-such" in capsys.readouterr().err
