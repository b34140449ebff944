import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from lab.catalogue import shipped
from orchestrator.command import run
from tests.lab.rehearsed_machines import SMALL

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


def small_file(folder: Path, expected: str) -> str:
    path = folder / "small.toml"
    path.write_text(
        f'name = "small"\ntitle = "{SMALL["title"]}"\n[machine]\nmemory.size = "64MiB"\n'
        "[machine.guest]\ncpu_dirty_rate = 0\n"
        '[[machine.device]]\nname = "qat0"\nmodel = "qat"\naddress = "00:04.0"\ndma_rate = 0\n'
        f'[run]\nwork_ms = 10\n[expect]\noutcome = "{expected}"\n'
    )
    return str(path)


def test_a_run_prints_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lab", "run", "--in-process", "--json", small_file(tmp_path, "completed")]) == 0
    document = json.loads(capsys.readouterr().out)
    Draft202012Validator(json.loads((SCHEMAS / "viaduct.lab.v1.json").read_text())).validate(document)
    (row,) = document["rows"]
    assert document["ok"] is True
    assert (row["scenario"], row["way"], row["stream"], row["verifier"]) == (
        "small",
        "in-process",
        "completed",
        "accepts",
    )
    assert (row["pages_lost"], row["pages_refused"], row["error"], row["disagreements"]) == (0, 0, "", [])


def test_a_row_that_is_not_as_expected_is_told_by_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["lab", "run", "--in-process", small_file(tmp_path, "failed")]) == 8
    printed = capsys.readouterr()
    assert "completed, not failed" in printed.out
    assert "error: 1 of 1 scenarios are not as expected: small\n  fix: " in printed.err


def test_what_is_no_scenario_is_said_in_two_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lab", "run", "--in-process", "no-such"]) == 2
    assert 'error: There is no scenario "no-such"\n  fix: ' in capsys.readouterr().err
    assert run(["lab", "run", "--in-process", small_file(tmp_path, "splendid")]) == 2
    assert 'expect.outcome: Unknown value "splendid"' in capsys.readouterr().err


def test_the_list_names_every_shipped_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lab", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    Draft202012Validator(json.loads((SCHEMAS / "viaduct.scenarios.v1.json").read_text())).validate(document)
    assert [line["name"] for line in document["scenarios"]] == [scenario.name for scenario in shipped()]
    assert run(["lab", "list"]) == 0
    assert "query-before-unmap-off" in capsys.readouterr().out


def test_another_process_sees_exactly_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "orchestrator.command", "lab", "run", "--in-process", "--json"]
    seen = [
        subprocess.run(
            [*command, "query-before-unmap-off"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=tmp_path,
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert seen[0] == seen[1]
