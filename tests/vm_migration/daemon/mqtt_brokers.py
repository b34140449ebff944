"""Real brokers and a real reader, mosquitto_sub, for the tests of the status publisher."""

import asyncio
import contextlib
import getpass
import json
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from vm_migration.loopback.ports import free_ports

DEADLINE = 30.0


@dataclass(frozen=True)
class Received:
    """A message as mosquitto_sub printed it."""

    topic: str
    payload: str
    qos: int
    retain: bool
    properties: dict[str, object]

    @property
    def document(self) -> dict[str, object]:
        document: dict[str, object] = json.loads(self.payload)
        return document


@dataclass
class Reader:
    """mosquitto_sub on everything of the site."""

    process: asyncio.subprocess.Process
    messages: list[Received] = field(default_factory=list)

    async def until(self, wanted: Callable[[list[Received]], bool]) -> list[Received]:
        """Read until the messages so far are what is wanted."""
        async with asyncio.timeout(DEADLINE):
            while not wanted(self.messages):
                await self._read()
        return self.messages

    async def until_topic(self, end: str, count: int = 1) -> list[Received]:
        """Read until so many messages came on topics with this end, and return those."""
        await self.until(lambda messages: sum(message.topic.endswith(end) for message in messages) >= count)
        return [message for message in self.messages if message.topic.endswith(end)]

    async def subscribed(self) -> None:
        async with asyncio.timeout(DEADLINE):
            while not (await self._line()).startswith("Subscribed"):
                pass

    async def _read(self) -> None:
        line = await self._line()
        if line.startswith("{"):
            raw = json.loads(line)
            properties = raw.get("properties", {})
            self.messages.append(
                Received(raw["topic"], raw["payload"] or "", raw["qos"], bool(raw["retain"]), properties)
            )

    async def _line(self) -> str:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "mosquitto_sub ended"
        return line.decode()


@dataclass(frozen=True)
class RunningBroker:
    """A broker under test."""

    kind: str
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"

    @contextlib.asynccontextmanager
    async def reader(self, *arguments: str) -> AsyncIterator[Reader]:
        program = shutil.which("mosquitto_sub")
        assert program, "mosquitto_sub is missing: apt-get install mosquitto-clients"
        version = "mqttv5" if self.kind == "mosquitto" else "mqttv311"
        where = ("-h", self.host, "-p", str(self.port), "-V", version)
        # Line by line: into a pipe it would write by the block.
        process = await asyncio.create_subprocess_exec(
            *("stdbuf", "-oL", program, *where, "-q", "1", "-t", "viaduct/#", "-d", "-F", "%j", *arguments),
            stdout=asyncio.subprocess.PIPE,
        )
        reader = Reader(process)
        try:
            await reader.subscribed()
            yield reader
        finally:
            # Not terminated: its handler disconnects from wherever the signal met it, also from inside its own lock.
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


@dataclass
class Mosquitto:
    """A mosquitto that can be stopped and started again on its port; it keeps nothing.

    As a context it has been started, and is stopped in any case.
    """

    folder: Path
    extra: str = ""
    port: int = 0
    process: asyncio.subprocess.Process | None = None

    @property
    def running(self) -> RunningBroker:
        return RunningBroker("mosquitto", "127.0.0.1", self.port)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        assert program, "mosquitto is missing: apt-get install mosquitto"
        self.port = self.port or free_port()
        configuration = self.folder / "mosquitto.conf"
        # Started by root it would become another user, who cannot read the tests' files.
        user = getpass.getuser()
        access = self.extra or "allow_anonymous true"
        configuration.write_text(f"user {user}\nlistener {self.port} 127.0.0.1\n{access}\n")
        self.process = await asyncio.create_subprocess_exec(
            program, "-c", str(configuration), stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        assert self.process.stderr is not None
        async with asyncio.timeout(DEADLINE):
            while b"running" not in (line := await self.process.stderr.readline()):
                assert line, "mosquitto did not start"

    async def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            await self.process.communicate()
            self.process = None


def free_port() -> int:
    (port,) = free_ports(1)
    return port
