import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from lab.through_agents.process_ram import NoRam, open_ram, pid_of

HOLDER = """
import os, sys
for name, pages in (("small", 1), ("ram", 16), ("other", 2)):
    descriptor = os.memfd_create(name)
    os.ftruncate(descriptor, pages * 4096)
    os.pwrite(descriptor, name.encode(), 4096 * (pages - 1))
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def process(*command: str) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        try:
            yield running
        finally:
            running.kill()


def test_ram_is_the_largest_and_outlives_its_process() -> None:
    with process(sys.executable, "-I", "-S", "-c", HOLDER) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        ram = open_ram(holder.pid)
    try:
        assert ram.pages == 16
        assert bytes(ram.data[15 * 4096 :][:3]) == b"ram"
        assert list(ram.extents()) == [(15, 1)]
    finally:
        ram.close()


def test_a_process_without_ram() -> None:
    with process("cat") as other:
        with pytest.raises(NoRam, match=f"Process {other.pid} holds no RAM"):
            open_ram(other.pid)
        other.kill()
        other.wait()
        with pytest.raises(NoRam, match=f"Process {other.pid} cannot be looked into"):
            open_ram(other.pid)


def test_a_machine_that_is_not_there(tmp_path: Path) -> None:
    machine = str(uuid4())
    with pytest.raises(NoRam, match=f"{machine} is not in"):
        pid_of(tmp_path, machine)
