"""The demo: what it writes, how it starts and ends processes, and the whole of it once."""

import asyncio
import itertools
import json
import signal
import sys
from pathlib import Path

import jsonschema
import psutil
import pytest

from orchestrator.demo.daemons import Daemon, running
from orchestrator.demo.scene import (
    HOSTS,
    Addresses,
    Backend,
    DemoOptions,
    GuestIommu,
    Viommu,
    agent_text,
    site_text,
    specification,
    tls_text,
)
from vm_migration.daemon.configuration import load
from vm_migration.errors import InternalError
from vm_migration.link.tls import TlsFiles
from vmm.assembly.document_faults import InvalidDocument

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
READY = "import os, socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
READY += "s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET']); time.sleep(600)"
SMALL = ("--memory", "128MiB", "--cpu-dirty-rate", "20MiB/s", "--dma-rate", "10MiB/s")


def options(
    backend: Backend = "iommufd", viommu: Viommu = "scalable", guest_iommu: GuestIommu = "nopt", memory: int = 256 << 20
) -> DemoOptions:
    return DemoOptions(memory, 100 << 20, 50 << 20, backend, viommu, guest_iommu, 1, insecure=False)


def test_every_choice_makes_a_machine_that_can_be() -> None:
    backends: tuple[Backend, ...] = ("iommufd", "type1")
    viommus: tuple[Viommu, ...] = ("scalable", "legacy", "none")
    guests: tuple[GuestIommu, ...] = ("pt", "nopt")
    for backend, viommu, guest in itertools.product(backends, viommus, guests):
        machine = specification(options(backend, viommu, guest))
        assert machine.device[0].enable_migration == ("on" if backend == "type1" else "auto")
        assert machine.viommu.model == ("none" if viommu == "none" else "intel")
        assert machine.guest.iommu == guest


def test_a_machine_that_cannot_be_is_refused_before_anything_starts() -> None:
    with pytest.raises(InvalidDocument, match="working set"):
        specification(options(memory=64 << 20))


def test_what_it_writes_is_a_configuration(tmp_path: Path) -> None:
    addresses = Addresses(
        "127.0.0.1:1",
        {h: f"127.0.0.1:{n}2" for n, h in enumerate(HOSTS, 1)},
        {h: f"127.0.0.1:{n}3" for n, h in enumerate(HOSTS, 1)},
    )
    files = TlsFiles(tmp_path / "ca.pem", tmp_path / "a.pem", tmp_path / "a.key")
    path = tmp_path / "host-a.toml"
    path.write_text(
        site_text(tmp_path, "mqtt://127.0.0.1:9", addresses) + tls_text(files) + agent_text(tmp_path, "host-a", 1 << 30)
    )
    configuration = load(path, {})
    assert (configuration.site.orchestrator, configuration.tls_files()) == ("127.0.0.1:1", files)
    assert configuration.agent is not None
    assert configuration.agent.memory_budget >= 2 << 30


async def test_daemons_run_while_the_context_is_entered(tmp_path: Path) -> None:
    daemons = [Daemon(name, [sys.executable, "-c", READY, str(tmp_path)]) for name in ("one", "two")]
    async with running(tmp_path, daemons):
        assert len(_knowing(tmp_path)) == 2
    assert _knowing(tmp_path) == []


async def test_a_daemon_that_ends_at_once_takes_the_others_with_it(tmp_path: Path) -> None:
    daemons = [
        Daemon("good", [sys.executable, "-c", READY, str(tmp_path)]),
        Daemon("bad", [sys.executable, "-c", "raise SystemExit('No disk is left')", str(tmp_path)]),
    ]
    with pytest.raises(ExceptionGroup) as errors:
        async with running(tmp_path, daemons):
            pytest.fail("it is not ready")
    assert errors.group_contains(InternalError, match="bad ended with 1 before it was ready: No disk is left")
    assert _knowing(tmp_path) == []


async def test_what_a_daemon_left_behind_is_ended(tmp_path: Path) -> None:
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {READY!r}, {str(tmp_path)!r}])"
    async with running(tmp_path, [Daemon("parent", [sys.executable, "-c", f"{start}; {READY}"])]):
        assert len(_knowing(tmp_path)) == 2
    assert _knowing(tmp_path) == []


async def test_the_whole_of_it(tmp_path: Path) -> None:
    demo = await _demo(tmp_path, "--json", *SMALL)
    out, err = await demo.communicate()
    assert demo.returncode == 0, err
    document = json.loads(out)
    jsonschema.validate(document, json.loads((SCHEMAS / "viaduct.migration.v1.json").read_text()))
    assert (document["outcome"], document["pages_mismatched"], document["guest"]["errors"]) == ("completed", 0, 0)
    parts = {name: value for name, value in document["downtime"].items() if name != "uncertainty_ms"}
    assert sum(parts.values()) == pytest.approx(document["downtime_ms"], abs=0.1)
    assert err == b""
    assert _left(tmp_path) == []


async def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    # Large enough that boot, first work and Prepare outlast any delay in seeing that the machine's process is there.
    demo = await _demo(tmp_path, *SMALL, "--memory", "512MiB")
    async with asyncio.timeout(30):
        while not _named(tmp_path, "vmm.process"):  # noqa: ASYNC110 - another process starts it
            await asyncio.sleep(0.1)
    demo.send_signal(signal.SIGINT)
    await demo.communicate()
    assert demo.returncode == 5
    assert _left(tmp_path) == []


async def _demo(folder: Path, *words: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "orchestrator.command", "demo", *words]
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env={"TMPDIR": str(folder)})


def _left(folder: Path) -> list[str]:
    return [*(path.name for path in folder.iterdir()), *_knowing(folder)]


def _named(folder: Path, name: str) -> list[str]:
    return [one for one in _knowing(folder) if name in one]


def _knowing(folder: Path) -> list[str]:
    lines = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = process.info["cmdline"] or ()
        if any(str(folder) in word for word in words) and "demo" not in words:
            lines.append(" ".join(words))
    return lines
