"""The page about metrics lists exactly what the daemons tell, and its configuration is one."""

import re
from pathlib import Path

from tools.generate_metrics import PAGE, part
from vm_migration.daemon.configuration import load


def test_the_page_is_what_the_metrics_generate() -> None:
    page = PAGE.read_text()
    assert part().within(page) == page


def test_the_page_s_configuration_is_valid(tmp_path: Path) -> None:
    shown = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert shown is not None
    path = tmp_path / "viaduct.toml"
    path.write_text(shown.group(1))
    section = load(path, {}).metrics
    assert (section.source, section.dest, section.orchestrator) == (
        "127.0.0.1:9461",
        "127.0.0.1:9462",
        "127.0.0.1:9463",
    )
