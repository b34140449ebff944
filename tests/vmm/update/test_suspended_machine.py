"""A machine that waits in files between two processes, suspended: mode reboot (semantics 9.1), with real processes."""

import contextlib
import errno
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vmm.update.machine_processes import Controller, specification
from vm_migration.machine.errors import LaunchFailed
from vm_migration.machine.launch import end_process, launch, take_away
from vm_migration.machine.run_directory import MachineDirectory, RunDirectory
from vmm.assembly.host_configuration import host_configuration
from vmm.assembly.machine_state import Origin
from vmm.assembly.specification import MachineSpecification, parse_specification
from vmm.guest.console import GuestAction
from vmm.process import control, update_requests
from vmm.process.control import Done, Judged, Paused, Refusal, Running
from vmm.update.documents import InvalidHandover, StateDocument
from vmm.update.suspended_machine import beside, forget, read, remove, write

STATE = StateDocument(1, 4, 2, 9, -1, Origin("mixture", ("text",), "ab"), b"unit", b"guest", ())
MACHINE = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"


def in_a_file(path: Path) -> MachineSpecification:
    """Return a machine of which nothing can migrate, with its RAM in a file."""
    made = specification(viommu=True, model="plain", enable_migration="off")
    memory = made.memory.model_copy(update={"backing": "file", "path": str(path)})
    return made.model_copy(update={"memory": memory})


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[MachineDirectory]:
    started = await launch(RunDirectory(tmp_path), uuid4(), in_a_file(tmp_path / "ram"), incoming=False)
    yield started
    await take_away(started, None)


@contextlib.contextmanager
def after_the_restart(directory: MachineDirectory, waits: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """New processes of a machine, of which the guest's devices are others; yield the machine's, and what it said."""
    known = parse_specification(directory.specification())
    socket = directory.path / control.HOST_SOCKET
    configuration = msgspec.json.encode(host_configuration(known)).decode()
    host = [sys.executable, "-m", "vfio_host.process.main", "--socket", str(socket), "--configuration", configuration]
    vmm = [sys.executable, "-m", "vmm.process.main", "--directory", str(directory.path)]
    vmm += ["--machine", str(directory.machine), "--suspended", str(waits)]
    with subprocess.Popen(host, stdout=subprocess.PIPE, text=True) as below:
        assert below.stdout is not None
        assert "ready" in below.stdout.readline()
        with subprocess.Popen(vmm, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stderr is not None
                yield process, process.stdout.readline() or process.stderr.read()
            finally:
                process.kill()
                below.kill()


def suspended(controller: Controller) -> None:
    reply = controller.ask(control.GuestCommand(action=GuestAction.SUSPEND, device=""))
    assert reply == Done()
    while controller.describe().guest.busy_actions:
        pass  # the guest's own work is the event


@contextlib.contextmanager
def moved_away(folder: Path) -> Iterator[None]:
    """Have nothing where a folder is."""
    elsewhere = folder.rename(folder.with_name("elsewhere"))
    try:
        yield
    finally:
        elsewhere.rename(folder)


async def test_a_machine_outlives_its_processes_and_its_devices(directory: MachineDirectory, tmp_path: Path) -> None:
    waits, instance = tmp_path / "waits", directory.instance()
    assert instance is not None
    with Controller(directory.path / control.CONTROL_SOCKET) as old:
        before = old.works(20)
        refusal = old.ask(update_requests.LeaveSuspended(path=str(waits)))
        assert isinstance(refusal, Refusal)
        assert "not-suspended" in refusal.reason
        with moved_away(tmp_path):
            found = old.ask(update_requests.JudgeUpdate(mode="reboot"))
        assert isinstance(found, Judged)
        assert [each.code for each in found.blockers] == ["not-suspended", "no-file-beside-memory"]
        suspended(old)
        assert old.ask(update_requests.JudgeUpdate(mode="reboot")) == Judged(blockers=())
        assert isinstance(old.ask(update_requests.LeaveSuspended(path=str(waits))), Paused)
        assert old.describe().handed_over
        assert isinstance(old.ask(control.StartTracking()), Refusal)
        assert isinstance(old.ask(control.Run(epoch=1)), Running)  # it has the machine again, and nothing waits
        assert not waits.exists()
        old.works(20)
        suspended(old)
        assert isinstance(old.ask(update_requests.LeaveSuspended(path=str(waits))), Paused)
        with after_the_restart(directory, waits) as (_, said):
            assert "is another machine's RAM" in said, "two processes had one machine's RAM"
        assert old.ask(control.Release(epoch=1)) == Done()
        assert old.ask(control.Destroy()) == Done()
    await end_process(instance.vmm, kill=False)
    await end_process(instance.host, kill=False)
    with after_the_restart(directory, waits) as (_, said):
        assert "ready" in said
        with Controller(directory.path / control.CONTROL_SOCKET, 2) as new:
            assert (new.describe().run_state, new.describe().guest.errors) == ("incoming", 0)
            assert isinstance(new.ask(control.Run(epoch=2)), Running)
            assert not waits.exists()
            after = new.works(before.guest.jobs_done + 20)
            assert after.guest.errors == 0
            assert new.ask(control.Destroy()) == Done()
    with after_the_restart(directory, waits) as (_, said):
        assert "No suspended machine can be read" in said


async def test_another_machine_does_not_get_the_ram_of_one_that_waits(
    directory: MachineDirectory, tmp_path: Path
) -> None:
    waits, instance = beside(tmp_path / "ram"), directory.instance()
    assert instance is not None
    with Controller(directory.path / control.CONTROL_SOCKET) as old:
        before = old.works(20)
        suspended(old)
        assert isinstance(old.ask(update_requests.LeaveSuspended(path=str(waits))), Paused)
        assert old.ask(control.Release(epoch=1)) == Done()
        assert old.ask(control.Destroy()) == Done()
    await end_process(instance.vmm, kill=False)
    await end_process(instance.host, kill=False)
    for incoming in (False, True):
        with pytest.raises(LaunchFailed, match="suspended machine that waits"):
            await launch(RunDirectory(tmp_path), uuid4(), in_a_file(tmp_path / "ram"), incoming=incoming)
    with after_the_restart(directory, waits) as (_, said):
        assert "ready" in said
        with Controller(directory.path / control.CONTROL_SOCKET, 2) as new:
            assert isinstance(new.ask(control.Run(epoch=2)), Running)
            assert new.works(before.guest.jobs_done + 20).guest.errors == 0
            assert new.ask(control.Destroy()) == Done()


def test_what_waits_is_read_by_its_own_machine_only(tmp_path: Path) -> None:
    path = tmp_path / "waits"
    write(path, MACHINE, 4096, STATE)
    assert read(path, MACHINE, 4096) == STATE
    assert [each.name for each in tmp_path.iterdir()] == ["waits"]
    for machine, size in (("another", 4096), (MACHINE, 8192)):
        with pytest.raises(InvalidHandover, match="waits machine"):
            read(path, machine, size)
    remove(path)
    remove(path)
    with pytest.raises(InvalidHandover, match="No suspended machine"):
        read(path, MACHINE, 4096)


def test_what_waits_is_its_users_alone_and_written_through_no_link(tmp_path: Path) -> None:
    path, foreign = tmp_path / "waits", tmp_path / "foreign"
    foreign.write_bytes(b"precious")
    path.with_name("waits.new").symlink_to(foreign)
    before = os.umask(0)
    try:
        write(path, MACHINE, 4096, STATE)
    finally:
        os.umask(before)
    assert foreign.read_bytes() == b"precious"
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read(path, MACHINE, 4096) == STATE


@pytest.mark.parametrize("planted", ["link", "file"])
def test_what_somebody_puts_where_it_is_to_be_written_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    """It comes between the look and the opening: nothing is written, and the machine goes on where it is."""
    path, new, removed = tmp_path / "waits", tmp_path / "waits.new", Path.unlink

    def removed_and_planted(each: Path, *, missing_ok: bool = False) -> None:
        removed(each, missing_ok=missing_ok)
        if each == new:
            new.symlink_to(tmp_path / "foreign") if planted == "link" else new.write_bytes(b"foreign")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", removed_and_planted)
        with pytest.raises(FileExistsError):
            write(path, MACHINE, 4096, STATE)
    assert not path.exists()
    assert not (tmp_path / "foreign").exists()


@pytest.mark.parametrize("name", ["ram.suspended", "ram.suspended.new"])
def test_what_is_forgotten_names_the_machine_and_is_no_link(tmp_path: Path, name: str) -> None:
    """Also what a writer left that was killed."""
    path, left = tmp_path / "ram.suspended", tmp_path / name
    forget(path, MACHINE)
    write(path, MACHINE, 64 << 20, STATE)
    data = path.read_bytes()[:100]
    path.rename(left)
    left.write_bytes(data)
    forget(path, str(uuid4()))
    assert left.read_bytes() == data
    forget(path, MACHINE)
    assert not left.exists()
    (tmp_path / "elsewhere").write_bytes(data)
    left.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        forget(path, MACHINE)
    assert left.is_symlink()


def test_what_an_earlier_life_did_not_finish_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "waits.new").write_bytes(b"half of it")
    write(tmp_path / "waits", MACHINE, 4096, STATE)
    assert [each.name for each in tmp_path.iterdir()] == ["waits"]


def test_what_cannot_be_written_leaves_what_lay_there(tmp_path: Path) -> None:
    path = tmp_path / "waits"
    path.mkdir()
    with pytest.raises(OSError, match="waits"):
        write(path, MACHINE, 4096, STATE)
    assert [each.name for each in tmp_path.iterdir()] == ["waits"]


def test_nothing_waits_where_the_folder_does_not_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine goes on then, and whoever began from the file later would begin on memory of another time."""
    path, synced = tmp_path / "waits", os.fsync

    def fails_for_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "folder")
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", fails_for_folders)
    with pytest.raises(OSError, match="folder"):
        write(path, MACHINE, 4096, STATE)
    assert list(tmp_path.iterdir()) == []


@given(data=st.binary(max_size=80))
def test_bytes_that_are_no_suspended_machine_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("waits") / "waits"
    path.write_bytes(data)
    with pytest.raises(InvalidHandover):
        read(path, MACHINE, 4096)
