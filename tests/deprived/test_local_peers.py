"""Local sockets are for the user who made them, and root: a connection of anybody else is closed unheard."""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from vfio_host.interface.channel import Channel, ChannelClosed, connect, listen, same_user
from vm_migration.machine.run_directory import RunDirectory

MACHINE, OTHER = UUID(int=1), UUID(int=2)


class Stranger(socket.socket):
    """A connection whose peer the kernel names as another user."""

    user = 0

    def getsockopt(self, level: int, option: int, size: int = 0) -> bytes:  # type: ignore[override]  # as it is called here
        assert (level, option, size) == (socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return struct.pack("=iII", 4242, self.user, 4242)


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    with Stranger(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        yield connection


def test_a_peer_of_this_user_is_heard(tmp_path: Path) -> None:
    with listen(tmp_path / "a.sock") as listener:
        channel = connect(tmp_path / "a.sock", 5.0)
        connection, _ = listener.accept()
        assert same_user(connection)
        Channel(connection).send(b"x")
        assert channel.receive()[0] == b"x"
        connection.close()
        with pytest.raises(ChannelClosed):
            channel.receive()
        channel.close()


@pytest.mark.parametrize(
    ("user", "heard"), [(0, True), (os.geteuid(), True), (os.geteuid() + 1, False), (65534, False)]
)
def test_root_and_this_user_are_heard_and_nobody_else(stranger: Stranger, user: int, heard: bool) -> None:
    stranger.user = user
    assert same_user(stranger) is heard


def test_the_folder_of_machines_is_for_its_owner_alone_whoever_made_it(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    made = run.create(MACHINE)
    assert made.path.stat().st_mode & 0o777 == 0o700
    made.path.parent.chmod(0o755)
    run.create(OTHER)
    assert made.path.parent.stat().st_mode & 0o777 == 0o700
