"""What is shipped is named with its licence, and stands under one that is allowed."""

import platform
import re
from email.message import Message
from importlib.metadata import PackageMetadata
from typing import cast

import pytest

from tools import shipped

LOCK = """# written by a tool
click==8.5.1 \\
    --hash=sha256:8bb5376d2006950386f8c6427613334a2acadc5f559cb80e638d00b4df957e37 \\
    --hash=sha256:9bbfada76703fd1d784b83eea012e3e8c6a001a876543ef104fa56aaaeb072b4
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:08695f5cb7ed6e0531a20572697297273c47b8cae5a63ffc6d6ed5c201be6e44
"""


def facts(**values: str) -> PackageMetadata:
    message = Message()
    for name, value in {"Name": "thing", "Version": "1", **values}.items():
        message[name.replace("_", "-")] = value
    return cast("PackageMetadata", message)


def test_a_lock_is_read_with_hashes_and_without_what_is_for_other_platforms() -> None:
    (click,) = shipped.packages(LOCK)
    assert (click.name, click.version, click.licence, len(click.hashes)) == ("click", "8.5.1", "BSD-3-Clause", 2)


@pytest.mark.parametrize(
    "lock", ["requirements.lock", "requirements-dev.lock", "requirements-tools.lock", "tests/asyncio-mqtt.lock"]
)
def test_every_package_of_a_lock_has_one_version_and_its_hashes(lock: str) -> None:
    text = (shipped.ROOT / lock).read_text(encoding="utf-8")
    entries = [entry for entry in re.split(r"^(?=[^ #\n])", text, flags=re.MULTILINE) if entry[:1] not in {"", "#"}]
    assert len(entries) > 0
    assert [
        entry.split()[0] for entry in entries if "==" not in entry.split()[0] or "--hash=sha256:" not in entry
    ] == []


def test_every_package_that_is_shipped_stands_under_a_licence_that_is_allowed() -> None:
    found = shipped.packages(shipped.LOCK.read_text(encoding="utf-8"))
    assert {package.name for package in found} >= {"grpcio", "cryptography", "numpy"}
    assert [package for package in found if not shipped.is_allowed(package.licence)] == []


def test_the_page_of_licences_is_what_the_packages_say() -> None:
    found = shipped.packages(shipped.LOCK.read_text(encoding="utf-8"))
    text = shipped.PAGE.read_text(encoding="utf-8")
    assert text == shipped.page(found), f"run 'make sbom' (this is Python {platform.python_version()})"


@pytest.mark.parametrize(
    ("told", "licence"),
    [
        (facts(License_Expression="MIT OR Apache-2.0", Classifier="License :: OSI Approved :: BSD License"), None),
        (facts(Classifier="License :: OSI Approved :: BSD License"), "BSD-3-Clause"),
        (facts(License="MIT"), "MIT"),
    ],
)
def test_an_expression_says_more_than_a_classifier_and_that_more_than_a_word(
    told: PackageMetadata, licence: str | None
) -> None:
    assert shipped.licence_of(told) == (licence or "MIT OR Apache-2.0")


@pytest.mark.parametrize("told", [facts(), facts(License="see the file"), facts(License="UNKNOWN")])
def test_a_package_that_names_no_licence_is_not_shipped(told: PackageMetadata) -> None:
    with pytest.raises(shipped.Unlicensed):
        shipped.licence_of(told)


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("EPL-2.0 OR BSD-3-Clause", True),
        ("BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0", True),
        ("MIT AND AGPL-3.0-only", False),
        ("(GPL-2.0-only OR MIT) AND ISC", True),
    ],
)
def test_of_a_choice_one_licence_is_enough_and_of_several_all_count(expression: str, allowed: bool) -> None:
    assert shipped.is_allowed(expression) is allowed
