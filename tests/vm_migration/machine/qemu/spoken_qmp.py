"""A QMP server that says what a test tells it to, at a socket of its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

GREETING: Final = {
    "QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}, "capabilities": []}
}
Answer = Mapping[str, object] | None
"""The members of an answer beside its id; None: there is none, and there will not be."""
Say = Callable[[str, Mapping[str, object]], Answer]


class SpokenQmp:
    """Answers each command as `say` says; `send` says something by itself, `late` answers what was left open."""

    def __init__(self, path: Path, say: Say) -> None:
        self.path: Final = path
        self.asked: Final[list[str]] = []
        self.greeting: object = GREETING
        self.greets = asyncio.Event()
        self.greets.set()
        self._say: Final = say
        self._open: asyncio.StreamWriter | None = None
        self._unanswered: Final[list[tuple[asyncio.StreamWriter, object]]] = []

    def send(self, document: object) -> None:
        assert self._open is not None
        self._open.write(json.dumps(document).encode() + b"\r\n")

    def event(self, name: str) -> None:
        self.send({"event": name, "data": {}, "timestamp": {"seconds": 1, "microseconds": 2}})

    def late(self, status: str = "running") -> None:
        for writer, identity in self._unanswered:
            said = {"return": {"status": status, "running": True}, "id": identity}
            writer.write(json.dumps(said).encode() + b"\r\n")
        self._unanswered.clear()

    def hang_up(self) -> None:
        assert self._open is not None
        self._open.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open = writer
        try:
            await self.greets.wait()
            self.send(self.greeting)
            while said := await reader.read(1 << 16):
                self._serve_one(json.loads(said))  # one command at a time is given, and each is small
        except ConnectionError:
            return
        finally:
            writer.close()

    def _serve_one(self, asked: Mapping[str, object]) -> None:
        command = str(asked["execute"] if "execute" in asked else asked["exec-oob"])
        arguments = asked.get("arguments", {})
        self.asked.append(command)
        assert isinstance(arguments, dict)
        answer = {"return": {}} if command == "qmp_capabilities" else self._say(command, arguments)
        if answer is None:
            assert self._open is not None
            self._unanswered.append((self._open, asked["id"]))
        else:
            self.send({**answer, **({"id": asked["id"]} if "id" in asked else {})})


@asynccontextmanager
async def speaking(path: Path, say: Say) -> AsyncIterator[SpokenQmp]:
    """Serve at a path for the length of the context."""
    spoken = SpokenQmp(path, say)
    server = await asyncio.start_unix_server(spoken.serve, path)
    try:
        yield spoken
    finally:
        server.close()
        if spoken._open is not None:
            spoken._open.close()
