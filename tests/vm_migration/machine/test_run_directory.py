"""What the run directory proves of a machine's processes, and what it does not."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from vm_migration.machine import run_directory
from vm_migration.machine.run_directory import Instance, ProcessId, RunDirectory, identify, instance_lives, lives
from vmm.process.identity import boot_id

MACHINE = UUID("0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01")


def own_instance(boot: str = "") -> Instance:
    own = identify(os.getpid())
    return Instance(boot or boot_id(), own, own, "token")


def test_an_instance_is_known_by_its_name_alone() -> None:
    assert instance_lives(own_instance().name) is True
    assert instance_lives(own_instance("another-boot").name) is False
    own = identify(os.getpid())
    assert instance_lives(Instance(boot_id(), ProcessId(own.pid, own.started + 1), own, "t").name) is False


@pytest.mark.parametrize("name", ["", "unknown:t", "boot:x:1:t", "boot:1:2", "a:1:2:t:more"])
def test_what_is_no_name_proves_nothing(name: str) -> None:
    assert instance_lives(name) is None


def test_a_process_that_has_ended_is_gone_before_and_after_it_is_reaped() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = identify(process.pid)
        assert lives(identity)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie still
        assert not lives(identity)
    assert not lives(identity)
    with pytest.raises(ProcessLookupError):
        identify(identity.pid)


def test_nothing_is_concluded_from_a_proc_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    own = identify(os.getpid())

    def full(_pid: int) -> int | None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(run_directory, "_started", full)
    assert lives(ProcessId(own.pid, own.started + 1))


def test_folders_of_machines(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert list(run.all()) == []
    directory = run.create(MACHINE)
    (tmp_path / "machines" / "not-a-machine").mkdir()
    assert [each.machine for each in run.all()] == [MACHINE]
    with pytest.raises(FileExistsError):
        run.create(MACHINE)
    assert directory.instance() is None
    assert not directory.alive()
    directory.write_instance(own_instance())
    assert directory.instance() == own_instance()
    assert directory.alive()
    directory.remove()
    directory.remove()
    assert list(run.all()) == []
