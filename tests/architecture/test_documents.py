import re
from pathlib import Path

LINK = re.compile(r"\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")
SCHEMA = re.compile(r"[\"'](viaduct\.[a-z_]+\.v\d+)[\"']")
DECISION = re.compile(r"\A# \d{4}\. .+\n\nDate: \d{4}-\d{2}-\d{2}\n")


def test_links_lead_somewhere(documents: list[Path]) -> None:
    dead = [
        f"{page}: {target}"
        for page in documents
        for target in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists()
    ]
    assert dead == []


def test_every_schema_name_is_described(root: Path, packages: list[str]) -> None:
    """Documents of commands have a JSON Schema each; messages over MQTT are described together."""
    sources = [path for package in packages for path in (root / package).rglob("*.py")]
    named = {name for path in sources for name in SCHEMA.findall(path.read_text(encoding="utf-8"))}
    messages = (root / "docs" / "asyncapi.yaml").read_text(encoding="utf-8")
    undescribed = {name for name in named if not (root / "docs" / "schemas" / f"{name}.json").is_file()}
    assert sorted(name for name in undescribed if name not in messages) == []


def test_decisions_are_numbered_and_dated(root: Path) -> None:
    records = sorted((root / "docs" / "adr").glob("*.md"))
    assert [path.name for path in records if not DECISION.match(path.read_text(encoding="utf-8"))] == []
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        assert path.read_text(encoding="utf-8").startswith(f"# {path.name[:4]}. ")


def test_the_changelog_has_room_for_what_comes(root: Path) -> None:
    assert "\n## [Unreleased]\n" in (root / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_target_of_make_that_a_page_names_exists(root: Path, documents: list[Path]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        target
        for page in documents
        for target in re.findall(r"(?:`|^\$ )make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert sorted(named - targets) == []


def test_help_describes_every_target_that_people_call(root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    undescribed = re.findall(r"^([a-z-]+):(?!.*## )(?!=)", makefile, re.MULTILINE)
    assert set(undescribed) == {"set-up", "set-up-dev"}
