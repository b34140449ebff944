"""Every target by name; a module of this folder is one when it has a TARGET."""

import importlib
from pathlib import Path

from tests.fuzz.target import Target

NAMES = tuple(
    sorted(path.stem for path in Path(__file__).parent.glob("*.py") if "\nTARGET = " in path.read_text("utf-8"))
)


def load(name: str) -> Target:
    """Import one target; what it tests is imported with it."""
    target = importlib.import_module(f"tests.fuzz.{name}").TARGET
    if not isinstance(target, Target) or target.name != name:
        raise TypeError(f"tests.fuzz.{name} has no target of its own name")
    return target
