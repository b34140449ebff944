"""What is read of this machine, so that images are made of what it can reach; no place is written down here."""

import re
import subprocess
import tomllib
from dataclasses import dataclass

import pytest

from tools.deploy.client import Engine
from tools.deploy.debian import mirror
from tools.deploy.ingredients import DEBIAN, MADE, ROOT, base, reachable_index

DEB822 = """Types: deb
# a remark: http://elsewhere.example
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
"""


@pytest.mark.parametrize(
    "sources",
    [
        DEB822,
        "# deb http://elsewhere.example old main\ndeb http://mirror.example/debian bookworm main\n",
        "deb [signed-by=/usr/share/keyrings/some.gpg arch=amd64] http://mirror.example/debian bookworm main\n",
    ],
)
def test_the_first_package_source_is_the_mirror(sources: str) -> None:
    assert mirror(sources) == "http://mirror.example/debian"


def test_a_machine_without_package_sources_is_told_so() -> None:
    with pytest.raises(ValueError, match="No package source"):
        mirror("# deb http://elsewhere.example old main\n")


@dataclass(frozen=True)
class Holding(Engine):
    """An engine that has some images, as far as it is asked for them."""

    images: tuple[str, ...] = ()

    def attempt(self, *arguments: str, seconds: float = 0.0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        del seconds, stdin
        assert arguments[:2] == ("image", "inspect")
        return subprocess.CompletedProcess(arguments, 0 if arguments[2] in self.images else 1)


@pytest.mark.parametrize(("beside", "expected"), [((), MADE), (("one", "two"), f"{MADE}:with-one-two")])
def test_a_base_with_packages_of_the_tests_is_for_the_tests_alone(beside: tuple[str, ...], expected: str) -> None:
    both = (MADE, f"{MADE}:with-one-two")
    assert base(Holding({}, both), registry=False, beside=beside) == expected
    others = tuple(one for one in both if one != expected)
    assert base(Holding({}, (*others, DEBIAN)), registry=False, beside=beside) == DEBIAN


def test_an_index_that_a_container_can_reach_is_handed_on_and_a_folder_is_not() -> None:
    said = (
        "global.index-url='https://index.example/simple'\n"
        "global.extra-index-url='file:///opt/simple https://more.example/simple'\n"
        ":env:.trusted-host='index.example'\n"
        "global.find-links='/opt/wheels'\n"
    )
    assert reachable_index(said) == {
        "PIP_INDEX_URL": "https://index.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://more.example/simple",
        "PIP_TRUSTED_HOST": "index.example",
    }
    assert reachable_index("global.index-url='file:///opt/simple'\n") == {}


def test_an_image_has_every_package_of_the_wheel() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        wheel = tomllib.load(file)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(wheel) <= let_in


def test_what_is_deployed_names_no_registry() -> None:
    files = [path for path in (ROOT / "deploy").rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert not re.search(r"docker\.io/|ghcr\.io|quay\.io|pypi\.org|deb\.debian\.org", path.read_text()), path
