"""No secret has a place on a command line, in a JSON document, or in what is told over MQTT."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import yaml

from orchestrator.command import viaduct

SECRET = re.compile(r"(?:^|_)(secret|password|passwd|ticket|token|credentials?)(?:$|_)")
PUBLIC = {"secret_hash"}


def parameters(command: click.Command, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from parameters(inner, f"{path} {name}")
    for parameter in command.params:
        for name in (parameter.name or "", *parameter.opts):
            yield path, name.strip("-").replace("-", "_")


def keys(document: object) -> Iterator[str]:
    """Yield every name that a document of a JSON schema may have a field by, at any depth."""
    if isinstance(document, dict):
        properties = document.get("properties")
        if isinstance(properties, dict):
            yield from properties
        for value in document.values():
            yield from keys(value)
    elif isinstance(document, list):
        for value in document:
            yield from keys(value)


def secrets(names: Iterator[str]) -> set[str]:
    return {name for name in names if SECRET.search(name) and name not in PUBLIC}


def test_no_option_or_argument_takes_a_secret() -> None:
    found = list(parameters(viaduct, "viaduct"))
    assert ("viaduct migrate", "to") in found
    assert secrets(name for _, name in found) == set()


def test_no_json_document_has_a_field_for_a_secret(root: Path) -> None:
    for path in (root / "docs" / "schemas").iterdir():
        names = set(keys(json.loads(path.read_text(encoding="utf-8"))))
        assert names, path
        assert secrets(iter(names)) == set(), path


def test_no_message_over_mqtt_has_a_field_for_a_secret(root: Path) -> None:
    names = set(keys(yaml.safe_load((root / "docs" / "asyncapi.yaml").read_text(encoding="utf-8"))))
    assert "outcome" in names
    assert secrets(iter(names)) == set()


def test_the_rule_sees_what_it_is_for() -> None:
    assert secrets(iter(("mqtt_password", "ticket", "secret_hash", "state"))) == {"mqtt_password", "ticket"}
