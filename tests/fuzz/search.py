"""One target under atheris, with libFuzzer's options: python -m tests.fuzz.search TARGET [OPTION ...] CORPUS ..."""

import sys

import atheris

from tests.fuzz.targets import load

_OURS = ["vfio_host", "vmm", "vm_migration", "source_agent", "dest_agent", "orchestrator", "lab"]


def main() -> None:
    """Search until libFuzzer ends the process."""
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=_OURS):
        target = load(name)
    atheris.Setup(sys.argv, target.feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
