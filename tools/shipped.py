"""What is shipped beside our own code: what requirements.lock installs on this platform, and under which licences.

Usage: python -m tools.shipped [--check]      writes docs/licences.md, or says whether it is as it would be written
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageMetadata, metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parent.parent
LOCK: Final = ROOT / "requirements.lock"
PAGE: Final = ROOT / "docs" / "licences.md"
_ENTRY: Final = re.compile(
    r"^(?P<requirement>[A-Za-z0-9._-]+==.*?)(?P<hashes>(?: \\\n +--hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE
)
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_SPDX: Final = {
    "MIT": "MIT",
    "MIT License": "MIT",
    "BSD License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD-2-Clause": "BSD-2-Clause",
    "BSD-3-Clause": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "ISC License": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""What packages wrote before there were licence expressions (PEP 639)."""
ALLOWED: Final = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "PSF-2.0",
        "Zlib",
    }
)
"""Licences under which a package may be shipped; of a choice, one of them is enough."""
_HEAD: Final = """\
# Under which licences what is shipped stands

Viaduct itself is under [Apache-2.0](../LICENSE). With it come the packages of requirements.lock, by hash. This list is
written from their own metadata by `make sbom`, and a test holds it to them and to the licences that are allowed.

| package | licence |
|---|---|
"""


class Unlicensed(Exception):
    """A package says of no licence, or of one that is not known here."""


@dataclass(frozen=True, slots=True)
class Package:
    """One package as the lock has it; `hashes` are those of its files, SHA-256."""

    name: str
    version: str
    hashes: tuple[str, ...]
    licence: str


def packages(lock: str, environment: Mapping[str, str] | None = None) -> tuple[Package, ...]:
    """Return what a lock installs on this platform, or in an environment of PEP 508's markers.

    Raises:
        Unlicensed: One of them has no licence that is known.
        importlib.metadata.PackageNotFoundError: One of them is not installed.
    """
    found = []
    for entry in _ENTRY.finditer(lock):
        requirement = Requirement(entry["requirement"])
        if requirement.marker is not None and not requirement.marker.evaluate(dict(environment or {})):
            continue
        name, version = canonicalize_name(requirement.name), str(requirement.specifier).removeprefix("==")
        found.append(Package(name, version, tuple(_HASH.findall(entry["hashes"])), licence_of(metadata(name))))
    return tuple(found)


def licence_of(facts: PackageMetadata) -> str:
    """Return a package's licence as an SPDX expression.

    Raises:
        Unlicensed: It names none that is known.
    """
    if "License-Expression" in facts:
        return facts["License-Expression"]
    classifiers = [
        line.rpartition(" :: ")[2] for line in facts.get_all("Classifier") or [] if line.startswith("License")
    ]
    told = (facts.get_all("License") or [""])[0]
    for text in (*classifiers, told):
        if text in _SPDX:
            return _SPDX[text]
    raise Unlicensed(f"{facts['Name']} {facts['Version']} names no known licence: {classifiers or told}")


def is_allowed(expression: str) -> bool:
    """Tell whether a package may be shipped: all parts of an AND, one of an OR."""
    return all(
        any(licence.strip("() ") in ALLOWED for licence in part.split(" OR ")) for part in expression.split(" AND ")
    )


def page(found: tuple[Package, ...]) -> str:
    """Return the page of licences."""
    return _HEAD + "".join(f"| {package.name} | {package.licence} |\n" for package in found)


def main() -> int:
    """Write the page, or check it."""
    text = page(packages(LOCK.read_text(encoding="utf-8")))
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{PAGE} is not what the packages say: run 'make sbom'", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
