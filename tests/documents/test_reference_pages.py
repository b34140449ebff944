"""The reference pages say what the code says."""

import re
import tomllib
from pathlib import Path

from vm_migration.daemon.configuration import load
from vmm.assembly.specification import check_specification
from vmm.vfio.blockers import BlockerCode

DOCS = Path(__file__).resolve().parents[2] / "docs"


def toml_of(page: str) -> dict[str, object]:
    found = re.search(r"```toml\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert found is not None
    return tomllib.loads(found.group(1))


def test_the_specification_page_shows_every_default() -> None:
    shown = toml_of("specification.md")
    least: dict[str, object] = {
        "name": "qat-guest",
        "memory": {"size": "1GiB"},
        "device": [{"name": "qat0", "model": "qat", "address": "00:04.0"}],
    }
    assert check_specification(shown, "page") == check_specification(least, "least")


def test_the_specification_page_shows_every_key() -> None:
    shown = toml_of("specification.md")
    assert {**shown, "device": None}.keys() == {"name", "kind", "memory", "viommu", "guest", "rules", "device"}
    whole = check_specification(shown, "page").model_dump()
    for table in ("viommu", "guest", "rules"):
        section = shown[table]
        assert isinstance(section, dict)
        assert section.keys() == {key for key, value in whole[table].items() if value is not None}
    devices = shown["device"]
    assert isinstance(devices, list)
    assert devices[0].keys() == {key for key, value in whole["device"][0].items() if value is not None}


def test_the_configuration_page_is_a_valid_configuration(tmp_path: Path) -> None:
    page = re.search(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text(), re.DOTALL)
    assert page is not None
    path = tmp_path / "viaduct.toml"
    path.write_text(page.group(1))
    configuration = load(path, {})
    assert configuration.site.name == "home"
    assert configuration.agent is not None
    assert configuration.agent.memory_budget == 64 << 30


def test_every_blocker_of_the_devices_is_on_the_page() -> None:
    page = (DOCS / "blockers.md").read_text()
    codes = set(re.findall(r"^\| `([a-z0-9-]+)` \|", page, re.MULTILINE))
    assert {code.value for code in BlockerCode} <= codes
    assert {"standstill-over-limit", "no-memory", "machine-exists", "attempt-open", "same-host", "version"} <= codes
