import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import check_model, model_runs
from tools.check_model import Result
from tools.model_runs import ALL, HARM, LONG, MUTATIONS, PROPERTIES, REACHED, WHOLE, Run

SUMMARY = """
pan:1: assertion violated ( !never_two_running ) (at depth 18)
State-vector 76 byte, depth reached 28, errors: {errors}
     1244 states, stored
  128.653\ttotal actual memory usage
pan: elapsed time 0.02 seconds
"""
CLEAN = SUMMARY.format(errors=0).replace("pan:1: assertion violated ( !never_two_running ) (at depth 18)", "")
PAGE = check_model.ROOT / "docs" / "protocol" / "model.md"


def result(broken: str = "", incomplete: str = "") -> Result:
    return Result(states=1, depth=1, mebibytes=1.0, seconds=0.1, broken=broken, incomplete=incomplete)


def test_a_run_without_an_error_is_read() -> None:
    assert check_model.read_result(CLEAN) == Result(1244, 28, 128.653, 0.02, "", "")


def test_an_error_names_the_property_that_it_breaks() -> None:
    assert check_model.read_result(SUMMARY.format(errors=1)).broken == "never_two_running"


def test_going_round_for_ever_is_an_error() -> None:
    output = CLEAN.replace("errors: 0", "errors: 1") + "pan:1: non-progress cycle (at depth 6)\n"
    assert check_model.read_result(output).broken == "goes_on_for_ever"


def test_a_search_that_was_cut_short_says_so() -> None:
    shallow = check_model.read_result("error: max search depth too small\n" + CLEAN)
    full = check_model.read_result("Warning: Search not completed\n" + CLEAN)
    assert (shallow.incomplete, full.incomplete) == ("search depth too small", "out of memory")


@pytest.mark.parametrize("output", ["", "pan: cannot allocate", CLEAN.replace("errors: 0", "errors: 1")])
def test_what_is_not_understood_is_no_success(output: str) -> None:
    with pytest.raises(check_model.CheckerError):
        check_model.read_result(output)


@pytest.mark.parametrize(
    ("falls", "outcome", "good", "words"),
    [
        (False, result(), True, "holds"),
        (False, result(broken="never_two_running"), False, "FALLS: never two running"),
        (True, result(broken="never_two_running"), True, "falls: never two running"),
        (True, result(), False, "SURVIVES"),
        (False, result(incomplete="out of memory"), False, "NOT FINISHED: out of memory"),
        (True, result(incomplete="out of memory"), False, "NOT FINISHED: out of memory"),
    ],
)
def test_the_protocol_must_hold_and_what_lacks_a_rule_must_fall(
    falls: bool, outcome: Result, good: bool, words: str
) -> None:
    assert check_model.verdict(Run("a run", {}, falls=falls), outcome) == (good, words)


def test_what_lacks_a_rule_must_fall_by_the_property_that_the_page_names() -> None:
    run = Run("no term", {}, falls=True)
    told = check_model.stated(PAGE.read_text())
    assert told["no term"] == "a driver that was taken over from changes nothing"
    assert {run.name for run in MUTATIONS} - set(told) == {"cycles, no discarded-final"}  # falls by not ending
    assert "faults" not in told
    assert set(told.values()) <= {each.words for each in PROPERTIES}
    fell = result(broken="never_an_old_driver")
    assert check_model.verdict(run, fell, told["no term"])[0]
    assert not check_model.verdict(run, result(broken="never_two_running"), told["no term"])[0]


def test_every_rule_of_the_model_is_taken_away_by_a_run_that_must_fall() -> None:
    bits = check_model.rule_bits(check_model.MODEL.read_text())
    assert len(set(bits.values())) == len(bits) > 30
    assert {rule for run in MUTATIONS for rule in run.without} == set(bits)


def test_every_property_is_the_models_and_the_whole_protocol_is_held_to_all() -> None:
    listed = re.search(r"enum \{ none, ([^}]*) \}", check_model.MODEL.read_text())
    assert listed is not None
    names = listed[1].replace("\n", " ").split(",")
    assert [each.name for each in PROPERTIES[:-1]] == [name.strip() for name in names]
    assert {run.watch for run in WHOLE} == {ALL}
    assert [each.name for each in PROPERTIES].index("never_contradictory") == 3
    assert ALL & ~HARM == model_runs.IMPOSSIBLE_PAIRS == 1 << 1 + 3


def test_every_state_that_the_model_can_be_asked_for_is_asked_for() -> None:
    numbers = [int(number) for number in re.findall(r"WITNESS\((\d+),", check_model.MODEL.read_text())]
    assert [run.witness for run in REACHED] == numbers
    assert check_model.verdict(REACHED[0], result()) == (False, "NOT REACHED")
    assert check_model.verdict(REACHED[0], result(broken="can_be_seen")) == (True, "reached")


def test_runs_are_named_once_and_the_page_knows_each() -> None:
    names = [run.name for run in (*WHOLE, *REACHED, *MUTATIONS, *LONG)]
    assert len(set(names)) == len(names)
    page = PAGE.read_text()
    assert [name for name in names if f"`{name}`" not in page] == []


def test_bounds_are_those_that_the_model_reads() -> None:
    read = set(re.findall(r'bound\("(\w+)"\)', check_model.MODEL.read_text()))
    named = {name for run in (*WHOLE, *REACHED, *MUTATIONS, *LONG) for name in run.bounds}
    assert named | {"WITNESS"} == read


def test_a_checker_is_told_bounds_rules_and_properties() -> None:
    run = Run("a run", model_runs.within(deaths=2), ("term", "image-kept"), watch=6)
    told = check_model.environment(run, {"term": 4, "image-kept": 32})
    assert {name: told[name] for name in ("ATTEMPTS", "DEATHS", "WITHOUT", "WATCH")} == {
        "ATTEMPTS": "2",
        "DEATHS": "2",
        "WITHOUT": "36",
        "WATCH": "6",
    }


def test_a_trail_speaks_in_the_models_own_words() -> None:
    model = check_model.MODEL.read_text()
    assert check_model.words_of("A: journals state 4 for attempt 1", model) == "A: journals RELEASED for attempt 1"
    assert check_model.words_of("B: freezes, about to give command 1", model) == "B: freezes, about to give RUN"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Have no program on the path but those that the test writes, beside the shell that they are for."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(name: str, body: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)

    return write


def test_a_missing_checker_is_two_lines(
    programs: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    programs("gcc", "exit 0")
    with pytest.raises(SystemExit, match="1"):
        check_model.main([])
    assert capsys.readouterr().err.splitlines() == [
        "The model's checker needs spin",
        "python3 tools/set_up.py dev model",
    ]


def test_a_model_that_cannot_be_read_fails_the_check(
    programs: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    programs("gcc", "exit 0")
    programs("spin", "echo syntax error; exit 1")
    with pytest.raises(SystemExit, match="1"):
        check_model.main([])
    assert capsys.readouterr().err.startswith("The checker failed: spin: syntax error\n")


def test_an_unknown_run_is_two_lines_and_names_all(
    programs: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    programs("gcc", "exit 0")
    programs("spin", "exit 0")
    with pytest.raises(SystemExit, match="1"):
        check_model.main(["no such run"])
    what, remedy = capsys.readouterr().err.splitlines()
    assert what == "Unknown runs: no such run"
    assert "no aborted-first" in remedy


def test_the_table_and_the_exit_code_say_that_a_rule_was_not_missed(
    programs: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    programs("spin", "exit 0")
    checker = CLEAN.replace("\t", "  ").replace("'", "")
    programs("gcc", f"printf '#!/bin/sh\\necho \"{checker}\"' > pan; {os.defpath.split(':')[0]}/chmod +x pan")
    assert check_model.main(["faults"]) == 0
    assert check_model.main(["faults", "no term"]) == 1
    table = capsys.readouterr().out.splitlines()
    assert table[-2].split()[0] == "faults"
    assert table[-2].endswith("holds")
    assert table[-1].endswith("SURVIVES")
