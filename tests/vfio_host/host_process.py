"""A `viaduct-vfio-host` process, and a client of its descriptors."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from vfio_host.interface import calls
from vfio_host.interface.calls import Answer, AnyCall, DeviceConfiguration, HostConfiguration, Opened
from vfio_host.interface.channel import Channel, close_all, connect

DEADLINE = 20.0
QAT = HostConfiguration(devices=(DeviceConfiguration(name="qat0", model="qat"),))


class Client:
    """One descriptor of the host."""

    def __init__(self, channel: Channel, number: int = 0) -> None:
        self.channel = channel
        self.id = number
        self.children: list[Client] = []

    def batch(self, made: Sequence[AnyCall], descriptors: Sequence[int] = ()) -> tuple[tuple[Answer, ...], list[int]]:
        self.channel.send(calls.encode(calls.Batch(tuple(made))), descriptors)
        body, received = self.channel.receive()
        return calls.answers_decoder.decode(body).answers, received

    def call(self, call: AnyCall, descriptors: Sequence[int] = ()) -> Answer:
        (answer,), received = self.batch((call,), descriptors)
        close_all(received)
        return answer

    def number(self, call: AnyCall) -> int:
        answer = self.call(call)
        assert isinstance(answer, calls.Number), answer
        return answer.value

    def done(self, call: AnyCall, descriptors: Sequence[int] = ()) -> None:
        assert self.call(call, descriptors) == calls.Done()

    def opened(self, call: AnyCall) -> "Client":
        (answer,), received = self.batch((call,))
        assert isinstance(answer, Opened), answer
        connection = socket.socket(fileno=received[answer.descriptor])
        connection.settimeout(DEADLINE)
        child = Client(Channel(connection), answer.id)
        self.children.append(child)
        return child

    def open(self, path: str) -> "Client":
        return self.opened(calls.Open(path=path))

    def close(self) -> None:
        """Close the descriptor and, after it, those that were opened on it."""
        self.channel.close()
        for child in self.children:
            child.close()


class HostProcess:
    """The process, listening."""

    def __init__(self, process: subprocess.Popen[str], path: Path) -> None:
        self.process = process
        self.path = path

    def connect(self) -> Client:
        return Client(connect(self.path, DEADLINE))

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def wait(self) -> int:
        return self.process.wait(timeout=DEADLINE)


@contextlib.contextmanager
def running_host(folder: Path, configuration: HostConfiguration = QAT) -> Iterator[HostProcess]:
    path = folder / "vfio-host.sock"
    text = msgspec.json.encode(configuration).decode()
    command = [sys.executable, "-m", "vfio_host.process.main", "--socket", str(path), "--configuration", text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert ready == {"event": "ready", "pid": process.pid}
            yield HostProcess(process, path)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def new_memory(size: int) -> int:
    descriptor = os.memfd_create("test-ram")
    os.ftruncate(descriptor, size)
    return descriptor
