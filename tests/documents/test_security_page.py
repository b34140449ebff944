"""The page about security says what the code says, and points at tests that there are."""

import re

from tools.generate_security import PAGE, generated

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_table_of_calls_is_what_the_code_generates() -> None:
    assert generated(TEXT) == TEXT
    assert "| `Source/Take` | yes | yes |" in TEXT


def test_a_table_of_another_time_is_noticed() -> None:
    assert generated(TEXT.replace("| `Source/Take` | yes | yes |", "| `Source/Take` | yes | |")) == TEXT


def test_every_test_that_is_pointed_at_is_there() -> None:
    named = set(re.findall(r"`(tests/[a-z_/]+\.py)`", TEXT))
    assert len(named) > 5
    assert not [name for name in named if not (PAGE.parents[1] / name).is_file()]
