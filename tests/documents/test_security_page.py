"""The page about security says what the code says, and points at tests that there are."""

import re

from tests.fuzz.targets import NAMES
from tools.generate_security import PAGE, part
from vm_migration.link.authorisation import RULES
from vm_migration.link.identity import Role

TEXT = PAGE.read_text(encoding="utf-8")


def pointed_at(text: str) -> set[str]:
    """Return the tests that a text points at, files and folders."""
    return set(re.findall(r"`(tests/[\w/.]+)`", text))


def tables(text: str) -> list[list[str]]:
    """Return every table of a page as its lines: head, rule and rows."""
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)]


def last_cell(row: str) -> str:
    """Return what stands in the last column of a table's row."""
    return row.strip("| ").rpartition("|")[2].strip()


def test_the_table_of_calls_is_what_the_code_generates() -> None:
    assert part().within(TEXT) == TEXT
    assert "| `Source/Take` | yes | yes |" in TEXT


def test_a_table_of_another_time_is_noticed() -> None:
    assert part().within(TEXT.replace("| `Source/Take` | yes | yes |", "| `Source/Take` | yes | |")) == TEXT


def test_every_test_that_is_pointed_at_is_there() -> None:
    named = pointed_at(TEXT)
    assert len(named) > 40
    assert not [name for name in named if not (PAGE.parents[1] / name).exists()]
    assert pointed_at("`tests/no_such.py`, `tests/system`") == {"tests/no_such.py", "tests/system"}


def test_tests_are_pointed_at_by_where_they_lie() -> None:
    assert re.findall(r"`(test_[^`]*)`", TEXT) == []


def test_every_claim_points_at_a_test() -> None:
    claims = [row for table in tables(TEXT) if table[0].endswith("| shown by |") for row in table[2:]]
    assert len(claims) > 40
    assert not [row for row in claims if not pointed_at(last_cell(row)) and not last_cell(row).startswith("the same")]


def test_every_parser_that_is_fuzzed_is_named() -> None:
    (named,) = [table for table in tables(TEXT) if table[0] == "| read | by |"]
    assert sorted(re.findall(r"`(\w+)`", " ".join(named))) == sorted(NAMES)


def test_how_many_calls_are_refused_is_what_the_table_says() -> None:
    calls = len(RULES)
    let_in = sum(len(rule.roles) for rule in RULES.values())
    refused = calls * len(Role) - let_in
    text = (PAGE.parent / "reliability.md").read_text(encoding="utf-8")
    assert f"| {calls} calls, {len(Role)} roles |" in text
    assert f"| of these {calls * len(Role)}, refused that should be | {refused} of {refused}, each logged" in text
    assert f"| let in that may | {let_in} of {let_in} |" in text
