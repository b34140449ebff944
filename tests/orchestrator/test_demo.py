"""The demo: what it makes of its options, and the whole of it once."""

import asyncio
import itertools
import json
import signal
import sys
from pathlib import Path

import jsonschema
import pytest

from orchestrator.demo.scene import Backend, DemoOptions, GuestIommu, Viommu, specification
from tests.processes import started_for
from vmm.assembly.document_faults import InvalidDocument

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
SMALL = ("--memory", "128MiB", "--cpu-dirty-rate", "20MiB/s", "--dma-rate", "10MiB/s", "--downtime-limit", "5s")


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


async def test_a_limit_that_nothing_can_keep_is_refused_before_anything_starts(tmp_path: Path) -> None:
    demo = await _demo(tmp_path, "--downtime-limit", "0s")
    out, err = await demo.communicate()
    assert (demo.returncode, out) == (2, b"")
    assert err.startswith(b"error: The downtime limit and the timeout must be at least 1 ms\n  fix: ")
    assert _left(tmp_path) == []


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
    async with asyncio.timeout(100):
        while not _named(tmp_path, "vmm.process"):
            assert demo.returncode is None, await demo.communicate()
            await asyncio.sleep(0.1)  # another process starts it
    demo.send_signal(signal.SIGINT)
    _, err = await demo.communicate()
    assert demo.returncode == 5, err
    assert _left(tmp_path) == []


async def _demo(folder: Path, *words: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, "-m", "orchestrator.command", "demo", *words]
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env={"TMPDIR": str(folder)})


def _left(folder: Path) -> list[str]:
    return [*(path.name for path in folder.iterdir()), *started_for(folder)]


def _named(folder: Path, name: str) -> list[str]:
    return [one for one in started_for(folder) if name in one]
