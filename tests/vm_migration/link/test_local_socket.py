"""The path at which an agent listens to its machine's process, and whose it is."""

from pathlib import Path

from vm_migration.link.machine_stream.local_socket import listening


def test_a_path_is_free_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "out.sock"
    with listening(path, 1):
        assert path.is_socket()
    assert not path.exists()


def test_what_an_earlier_life_left_is_replaced_and_its_end_takes_nothing_away_from_the_next(tmp_path: Path) -> None:
    path = tmp_path / "out.sock"
    with listening(path, 1) as old:
        with listening(path, 1) as new:
            old.close()
            assert new.getsockname() == str(path)
            later = path.stat().st_ino
            path.rename(tmp_path / "kept")
        (tmp_path / "kept").rename(path)
        assert path.stat().st_ino == later
    assert path.stat().st_ino == later, "the one that came later has it"


def test_a_folder_that_went_in_between_is_no_fault(tmp_path: Path) -> None:
    folder = tmp_path / "machine"
    folder.mkdir()
    with listening(folder / "out.sock", 1):
        (folder / "out.sock").unlink()
        folder.rmdir()
    assert not folder.exists()
