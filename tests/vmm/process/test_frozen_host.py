"""A host process that is frozen for a while: its machine waits for it, as a process waits in the kernel."""

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.vfio_host.host_process import running_host
from vmm.process import host_connection
from vmm.process.host_connection import HostConnection
from vmm.vfio.host_port import HostGone

LONG = 20.0


def asked_while_frozen(connection: HostConnection, errors: list[HostGone]) -> threading.Thread:
    def ask() -> None:
        try:
            connection.open("/dev/iommu").descriptor.close()
        except HostGone as error:
            errors.append(error)

    thread = threading.Thread(target=ask, name="a call to the host")
    thread.start()
    return thread


def test_a_frozen_host_does_not_end_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_connection, "DEADLINE", 0.1)
    with running_host(tmp_path) as host:
        connection = HostConnection(host.path)
        errors: list[HostGone] = []
        os.kill(host.process.pid, signal.SIGSTOP)
        thread = asked_while_frozen(connection, errors)
        thread.join(0.4)
        assert thread.is_alive()
        os.kill(host.process.pid, signal.SIGCONT)
        thread.join(LONG)
        assert not thread.is_alive()
        assert errors == []
        connection.close()


def test_a_host_that_dies_while_it_is_asked_is_gone(tmp_path: Path) -> None:
    with running_host(tmp_path) as host:
        connection = HostConnection(host.path)
        errors: list[HostGone] = []
        os.kill(host.process.pid, signal.SIGSTOP)
        thread = asked_while_frozen(connection, errors)
        os.kill(host.process.pid, signal.SIGKILL)
        thread.join(LONG)
        assert not thread.is_alive()
        assert len(errors) == 1
        connection.close()
