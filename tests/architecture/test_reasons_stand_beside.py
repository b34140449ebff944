"""Whatever asks a tool to look away, and whatever looks again and again for want of an event, says why."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("dest_agent", "lab", "orchestrator", "source_agent", "vfio_host", "vm_migration", "vmm")
FOLDERS = (*PROGRAMS, "benchmarks", "tests", "tools")
GENERATED = ("vm_migration/api/",)
VIRTUAL = ("tests/simulation/",)
"""Where sleeping takes no time."""
LOOKS_AWAY = re.compile(
    r"# (?:noqa(?:: ?[A-Z]+[0-9]+(?:, ?[A-Z]+[0-9]+)*)?|type: ignore(?:\[[a-z, -]+\])?)(?P<rest>.*)"
)
REASON = re.compile(r"\s*(?:#|-)\s+\S+.*")
SLEEPS = {"asyncio.sleep", "time.sleep"}
NO, QA = "# no", "qa"
"""Apart, so that the tools do not take this file's own words for theirs."""


def sources(root: Path, *words: str) -> dict[Path, str]:
    """Return the text of every module that is written by hand and holds one of these words."""
    found = {}
    for path in (path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        text = path.read_text("utf-8")
        name = path.relative_to(root)
        if any(word in text for word in words) and not str(name).startswith(GENERATED):
            found[name] = text
    return found


def comments(text: str) -> dict[int, str]:
    """Return every comment by its line."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


def without_a_reason(text: str) -> list[int]:
    """Return the lines that suppress a finding and say nothing of it, there or in a comment of the line above."""
    told = comments(text)
    lines = text.splitlines()
    return [
        line
        for line, comment in told.items()
        if (found := LOOKS_AWAY.match(comment)) and not REASON.fullmatch(found["rest"])
        and not (line - 1 in told and lines[line - 2].lstrip().startswith("#"))
    ]  # fmt: skip


def periodic_without_a_reason(text: str) -> list[int]:
    """Return the lines that sleep in a loop and say nothing of it, there, a line above, or where the loop begins."""
    told = comments(text)
    return [at for loop, at in _sleeps(ast.parse(text), None) if not {at, at - 1, loop} & told.keys()]


def _sleeps_long(call: ast.Call) -> bool:
    return ast.unparse(call.func) in SLEEPS and ast.unparse(call.args[0]) != "0"


def _sleeps(node: ast.AST, loop: int | None) -> Iterator[tuple[int, int]]:
    """Yield where a loop begins and where in it somebody sleeps, but for sleep(0), which only lets others run."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _sleeps(child, None)
            continue
        if loop is not None and isinstance(child, ast.Call) and _sleeps_long(child):
            yield loop, child.lineno
        inner = child.lineno if isinstance(child, ast.While | ast.For | ast.AsyncFor) else loop
        yield from _sleeps(child, inner)


def test_whatever_looks_away_says_why(root: Path) -> None:
    modules = sources(root, f"{NO}{QA}", "# type: ignore")
    assert [f"{name}:{line}" for name, text in modules.items() for line in without_a_reason(text)] == []


def test_whoever_sleeps_in_a_loop_says_why(root: Path) -> None:
    modules = {name: text for name, text in sources(root, "sleep(").items() if not str(name).startswith(VIRTUAL)}
    assert [f"{name}:{line}" for name, text in modules.items() for line in periodic_without_a_reason(text)] == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"x = 1  {NO}{QA}: S311", False),
        (f"x = 1  {NO}{QA}", False),
        (f"x = 1  {NO}{QA}: S311 - not a secret", True),
        (f"x = 1  {NO}{QA}: S311, N802  # not a secret", True),
        ("x = 1  # type: " + "ignore[misc]", False),
        ("x = 1  # type: " + "ignore[arg-type, misc]  # it looks at none", True),
        (f"# Not a secret.\nx = 1  {NO}{QA}: S311", True),
        ("x = 1  # nothing to do with it", True),
    ],
)
def test_a_reason_is_seen_where_it_stands(line: str, said: bool) -> None:
    assert (without_a_reason(line + "\n") == []) is said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("while x:\n    time.sleep(1)", False),
        ("while x:\n    time.sleep(1)  # it has no event", True),
        ("while x:\n    # It has no event.\n    time.sleep(1)", True),
        ("while x:  # it has no event\n    y()\n    time.sleep(1)", True),
        ("for x in y:\n    with z:\n        asyncio.sleep(EVERY)", False),
        ("while x:\n    asyncio.sleep(0)", True),
        ("time.sleep(1)", True),
    ],
)
def test_a_reason_for_sleeping_is_seen_where_it_stands(text: str, said: bool) -> None:
    assert (periodic_without_a_reason(text + "\n") == []) is said
