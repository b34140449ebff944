"""The scenarios that are shipped, by their names."""

from pathlib import Path

from lab.scenario import SHIPPED, Scenario, load_scenarios
from vm_migration.errors import InvalidInput


def shipped_files() -> dict[str, tuple[Scenario, ...]]:
    """Return the scenarios of each shipped file, by its name without the ending.

    Raises:
        InvalidDocument: A file is no scenario.
    """
    return {path.stem: load_scenarios(path) for path in sorted(SHIPPED.glob("*.toml"))}


def shipped() -> tuple[Scenario, ...]:
    """Return all shipped scenarios, by file and then in its order.

    Raises:
        InvalidDocument: A file is no scenario.
    """
    return tuple(one for scenarios in shipped_files().values() for one in scenarios)


def find(named: str) -> tuple[Scenario, ...]:
    """Return the scenarios of a file, or those that are shipped under a name: all cases of a file, or one of them.

    Raises:
        InvalidInput: There is neither.
        InvalidDocument: The file is no scenario.
    """
    for path in (SHIPPED / f"{named}.toml", Path(named)):
        if path.is_file():
            return load_scenarios(path)
    found = tuple(one for one in shipped() if one.name == named)
    if found:
        return found
    hint = "Name a file, or one of those that `viaduct lab list` shows"
    raise InvalidInput("no-such-scenario", f'There is no scenario "{named}"', hint)
