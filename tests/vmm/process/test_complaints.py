import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.vmm.tiny_machine import tiny_commands
from vmm.process.complaints import LIMIT, Complaints
from vmm.process.server import MachineServer

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def test_each_failure_is_a_line_as_the_agents_log() -> None:
    stream = io.StringIO()
    Complaints(stream, lambda: MOMENT).write(["vfio_container_dma_map(0x1000, 0x1000) = -22 (Invalid argument)"])
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {
            "time": "2026-01-02T03:04:05.678901Z",
            "level": "warning",
            "process": "viaduct-vmm",
            "event": "vfio_container_dma_map(0x1000, 0x1000) = -22 (Invalid argument)",
        }
    ]


def test_a_guest_does_not_fill_the_disk() -> None:
    stream = io.StringIO()
    complaints = Complaints(stream)
    for _ in range(LIMIT):
        complaints.write(["one", "two"])
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert len(events) == LIMIT
    assert events[-1] == "further failures are not told"
    assert events.count("one") == LIMIT // 2


def test_a_server_tells_what_the_host_refused_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    with tiny_commands() as commands:

        def tell(texts: Sequence[str]) -> None:
            heard.extend(texts)
            commands.ended = True

        monkeypatch.setattr(commands.machine, "take_failures", lambda: ["a query failed"])
        server = MachineServer(commands, tmp_path / "control", tell)
        server.run()
        server.close()
    assert heard == ["a query failed"]
