import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement


@pytest.fixture
def requirements(root: Path) -> dict[str, Requirement]:
    """What pyproject.toml asks for, by name."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


def test_stubs_are_what_proto_generates(root: Path) -> None:
    command = [sys.executable, str(root / "tools" / "generate_api.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_generator_is_pinned_to_the_oldest_runtime_that_takes_its_code(
    requirements: dict[str, Requirement],
) -> None:
    """Stubs refuse a grpcio older than their generator: the pin and the floor are one version."""
    (pin,) = requirements["grpcio-tools"].specifier
    assert pin.operator == "=="
    for runtime in ("grpcio", "grpcio-health-checking", "grpcio-reflection"):
        assert str(requirements[runtime].specifier) == f">={pin.version}"
