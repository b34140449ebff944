"""The checkout as the architecture tests see it."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def packages() -> list[str]:
    """The packages that are installed."""
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named: list[str] = metadata["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return named


@pytest.fixture(scope="session")
def written_by_hand(packages: list[str]) -> list[Path]:
    """Every Python file but the generated ones."""
    folders = [*packages, "tests", "tools", "benchmarks"]
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in found if "_pb2" not in path.name)


@pytest.fixture(scope="session")
def documents() -> list[Path]:
    """Every page of documentation."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
