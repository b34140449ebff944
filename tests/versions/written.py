"""What daemons have written, read by the code of either version in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec

from tests.versions.mixed_site import HOSTS, MixedSite
from tests.versions.programs import FOLDER, NEWER, Version
from vm_migration.handover.states import State

WHOLE_LIFE = set(State) - {State.LOST, State.RECLAIMED, State.TAKEN}
"""What a machine goes through that is made, aborted once, moved there and back, and destroyed."""


def read_by(version: Version, what: str, path: Path) -> object:
    """Return what a version's own code makes of a file or a folder."""
    command = version.command(sys.executable, str(FOLDER / "reading.py"), what, str(path))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def require_journals_read(site: MixedSite, machine: str, older: Version) -> None:
    """Check that both versions read every record that either has written of a machine which is no more."""
    for version in (older, NEWER):
        states: set[str] = set()
        for host in HOSTS:
            found = msgspec.convert(read_by(version, "journals", site.journals(host)), dict[str, list[str]])
            states.update(found[machine])
        assert states == {state.value for state in WHOLE_LIFE}
