"""Programs of several versions in one environment: this checkout's, and those of the wheel of the version before."""

import compileall
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.system.daemons import program
from vm_migration.daemon.host_facts import VERSION

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Version:
    """One version; `first` stands before everything else on the module path of its processes, and of theirs."""

    number: str
    first: tuple[Path, ...] = ()

    def command(self, name: str, *arguments: str) -> list[str]:
        """Return the command that runs an installed program, or the interpreter itself, with this version's code."""
        if not self.first:
            return [program(name), *arguments]
        path = ":".join(map(str, self.first))
        # Without PYTHONSAFEPATH `python -m` looks into the working directory first, where this checkout may be.
        return ["env", f"PYTHONPATH={path}", "PYTHONSAFEPATH=1", program(name), *arguments]


NEWER = Version(VERSION)


def older(folder: Path) -> Version:
    """Unpack the wheel of the version before into an empty folder."""
    (wheel,) = FOLDER.glob("viaduct-*.whl")
    written = wheel.with_name(f"{wheel.name}.sha256").read_text().split()
    assert written == [hashlib.sha256(wheel.read_bytes()).hexdigest(), wheel.name]
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    compileall.compile_dir(folder, quiet=1)  # once, and not at the start of each of its processes
    return Version(wheel.name.split("-")[1], (folder,))


def pretending(number: str, folder: Path) -> Version:
    """Have this checkout's code say of itself that it is of another version."""
    metadata = folder / f"viaduct-{number}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.4\nName: viaduct\nVersion: {number}\n")
    return Version(number, (folder,))
