import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-tools.lock", "tests/asyncio-mqtt.lock"]
ENTRY = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?P<rest>.*(?:\n    --hash=.*)+)", re.MULTILINE)


def locked(path: Path) -> dict[str, str]:
    return {canonicalize_name(entry["name"]): entry["version"] for entry in ENTRY.finditer(path.read_text())}


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("requirements.lock", ["build"]),
        ("requirements-dev.lock", ["build", "dev"]),
        ("requirements-tools.lock", ["build", "dev", "tools"]),
    ],
)
def test_a_lock_holds_what_the_project_asks_for(root: Path, lock: str, extras: list[str]) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    versions = locked(root / lock)
    unmet = [
        line
        for line in asked
        if (name := canonicalize_name((wanted := Requirement(line)).name)) not in versions
        or versions[name] not in wanted.specifier
    ]
    assert unmet == [], "run 'make lock'"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_versions_and_hashes_and_nothing_else(root: Path, lock: str) -> None:
    rest = ENTRY.sub("", (root / lock).read_text())
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []


def test_tests_run_on_the_versions_that_are_shipped(root: Path) -> None:
    shipped, tested = locked(root / "requirements.lock"), locked(root / "requirements-dev.lock")
    assert {name: version for name, version in shipped.items() if tested.get(name) != version} == {}
