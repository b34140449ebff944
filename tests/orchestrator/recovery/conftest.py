"""A site whose journals a test writes, and the command line in front of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.command import run_here
from orchestrator.diagnosis import examination
from orchestrator.recovery import rows, settling
from tests.orchestrator.recovery.journalled_hosts import JournalledSite, journalled_site
from tests.orchestrator.test_viaduct_command import Run, Said


@pytest.fixture
async def site() -> AsyncIterator[JournalledSite]:
    async with journalled_site("host-a", "host-b", "host-c") as running:
        yield running


@pytest.fixture
def config(site: JournalledSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIADUCT_INSECURE", "1")
    monkeypatch.setattr(examination, "LOOK_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(settling, "_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(rows, "PATIENCE_SECONDS", 0.2)
    path = tmp_path / "viaduct.toml"
    hosts = "".join(
        f'[host.{name}]\nsource = "{one.source}"\ndest = "{one.dest}"\n' for name, one in site.addresses.items()
    )
    path.write_text(f'[site]\nname = "home"\nstore = "sqlite://{tmp_path}/orchestrator.db"\n{hosts}')
    monkeypatch.setenv("VIADUCT_CONFIG", str(path))
    return path


@pytest.fixture
def viaduct(config: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    async def run(*words: str) -> Said:
        exit_code = await run_here(words)
        captured = capsys.readouterr()
        return Said(exit_code, captured.out, captured.err)

    return run
