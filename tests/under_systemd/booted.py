"""A systemd that runs for real, with the shipped units, beside whatever runs this machine (boot.sh)."""

import os
import select
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.system.processes import ended

REPOSITORY: Final = Path(__file__).parents[2]
UNITS: Final = REPOSITORY / "deploy" / "systemd"
SECONDS: Final = 60.0
_PROGRAMS: Final = {
    "viaduct": "orchestrator.command",
    "viaduct-source-agent": "source_agent.process",
    "viaduct-dest-agent": "dest_agent.process",
    "viaduct-machine-start": "vm_migration.machine.unit_process",
}


class Console:
    """The terminal that systemd logs to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: Final = descriptor
        self._unseen = ""

    def awaited(self, text: str) -> str:
        """Return the next line with a text in it; AssertionError with all that came instead in so many seconds."""
        seen: list[str] = []
        written = select.poll()
        written.register(self._descriptor, select.POLLIN)
        until = time.monotonic() + SECONDS
        while True:
            line, end, rest = self._unseen.partition("\n")
            if end:
                self._unseen = rest
                seen.append(line)
                if text in line:
                    return line
            elif written.poll(max(0.0, until - time.monotonic()) * 1000):
                self._unseen += os.read(self._descriptor, 65536).decode(errors="replace")
            else:
                raise AssertionError(f"Not logged within {SECONDS:g} s: {text!r}\n" + "\n".join(seen))


@dataclass(frozen=True, slots=True)
class Booted:
    """A machine that runs systemd; commands are run inside, as root."""

    console: Console
    init: int

    def run(self, *words: str, stdin: str = "") -> str:
        """Run a command and return what it wrote; AssertionError with that and the journal's end where it failed."""
        done = self._inside(words, stdin)
        if done.returncode != 0:
            journal = self._inside(("journalctl", "--no-pager", "--lines=50", "--output=cat"), "").stdout
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout}{done.stderr}\n{journal}")
        return done.stdout

    def _inside(self, words: Sequence[str], stdin: str) -> "subprocess.CompletedProcess[str]":
        into = ["nsenter", "--target", str(self.init), "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--net"]
        command = [*into, "--root", "--wd", "--", *words]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False)

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Write a file."""
        self.run("install", "-D", "-m", mode, "/dev/stdin", path, stdin=text)

    def logged(self, text: str) -> str:
        """Wait until systemd logs something; return the line. Each line is seen once."""
        return self.console.awaited(text)

    def wire(self, name: str, other: "Booted", its_name: str) -> None:
        """Lay a wire to another machine: a device here, and one there."""
        here, there = (name, "netns", str(self.init)), (its_name, "netns", str(other.init))
        subprocess.run(
            ["ip", "link", "add", *here, "type", "veth", "peer", "name", *there], check=True, timeout=SECONDS
        )

    def property(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).strip()


@contextmanager
def booted() -> Iterator[Booted]:
    """Boot, with the units and programs in place and nothing started; all of it is gone afterwards.

    The folder is not pytest's: the cgroup bears its name.
    """
    folder = Path(tempfile.mkdtemp(prefix="viaduct-systemd-"))
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 500))  # no line is shortened
    console = Console(ours)
    booting = _boot(folder, os.ttyname(theirs))
    try:
        console.awaited("Reached target")
        (init,) = Path(f"/proc/{booting.pid}/task/{booting.pid}/children").read_text().split()
        yield _with_units(Booted(console, int(init)))
    finally:
        _end(booting)
        os.close(theirs)
        os.close(ours)
        _remove_cgroup(folder.name)
        shutil.rmtree(folder)


def _boot(folder: Path, console: str) -> "subprocess.Popen[bytes]":
    script, packages = Path(__file__).with_name("boot.sh"), sysconfig.get_path("purelib")
    words = [script, folder, console, REPOSITORY, sys.base_prefix, packages]
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount"]  # it ends with the tests, however those do
    return subprocess.Popen([*alone, *map(str, words)], stdin=subprocess.DEVNULL)


def _end(booting: "subprocess.Popen[bytes]") -> None:
    """End the first process of the namespace, and so every other."""
    children = Path(f"/proc/{booting.pid}/task/{booting.pid}/children").read_text().split()
    booting.kill()
    booting.wait()
    assert all(ended(int(child), SECONDS) for child in children)


def _with_units(machine: Booted) -> Booted:
    for unit in UNITS.iterdir():
        if unit.suffix in (".service", ".socket", ".slice"):
            machine.write(f"/etc/systemd/system/{unit.name}", unit.read_text())
    for program, module in _PROGRAMS.items():
        script = f"#!/opt/viaduct/bin/python\nimport sys\nfrom {module} import main\nsys.exit(main())\n"
        machine.write(f"/usr/local/bin/{program}", script, "755")
    machine.write("/usr/lib/sysusers.d/viaduct.conf", (UNITS / "viaduct.sysusers").read_text())
    machine.run("systemd-sysusers")
    machine.run("systemctl", "daemon-reload")
    return machine


def _remove_cgroup(name: str) -> None:
    """Remove what systemd made of its cgroup; the hierarchy is mounted here or not."""
    with tempfile.TemporaryDirectory(prefix="viaduct-cgroup-") as place:
        remove = f'mount -t cgroup2 cgroup2 "$0" && find "$0/{name}" -depth -type d -exec rmdir {{}} +; umount "$0"'
        subprocess.run(["unshare", "--mount", "sh", "-c", remove, place], check=True, timeout=SECONDS)
