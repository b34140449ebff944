"""Writes a bill of what is shipped: CycloneDX 1.6, dist/viaduct-VERSION.cdx.json, the same for the same lock.

Usage: python -m tools.sbom

Every package of requirements.lock that this platform installs is in it, with the hashes by which it is installed, its
licence, and what it depends on. What was written is checked against the schema of CycloneDX; the exit code is 1 if it
does not fit.
"""

import json
import sys
import tomllib
from importlib.metadata import requires
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.shipped import LOCK, ROOT, Package, packages

_INDEX: Final = "https://pypi.org/simple"
_LICENCES: Final = LicenseFactory()


def bill(name: str, version: str, licence: str, shipped: tuple[Package, ...], direct: tuple[str, ...]) -> Bom:
    """Return the bill of a program of this name; `direct` are the requirements that it states itself."""
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, "\n".join(hash_ for one in shipped for hash_ in one.hashes)))
    program = Component(name=name, version=version, type=ComponentType.APPLICATION, bom_ref=name)
    program.licenses.add(_LICENCES.make_from_string(licence))
    bom.metadata.component = program
    components = {package.name: _component(package) for package in shipped}
    for component in components.values():
        bom.components.add(component)
    bom.register_dependency(program, _wanted(direct, components))
    for package in shipped:
        bom.register_dependency(components[package.name], _wanted(tuple(requires(package.name) or ()), components))
    return bom


def _component(package: Package) -> Component:
    url = PackageURL("pypi", name=package.name, version=package.version)
    component = Component(name=package.name, version=package.version, purl=url, bom_ref=str(url))
    component.licenses.add(_LICENCES.make_from_string(package.licence))
    files = [HashType(alg=HashAlgorithm.SHA_256, content=each) for each in package.hashes]
    component.external_references.add(
        ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(f"{_INDEX}/{package.name}/"), hashes=files)
    )
    return component


def _wanted(requirements: tuple[str, ...], components: dict[str, Component]) -> list[Component]:
    stated = [Requirement(line) for line in requirements]
    here = [each for each in stated if each.marker is None or each.marker.evaluate({"extra": ""})]
    names = {canonicalize_name(each.name) for each in here}
    return [component for name, component in components.items() if name in names]


def main() -> int:
    """Write it, and check what was written."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shipped = packages(LOCK.read_text(encoding="utf-8"))
    bom = bill(project["name"], project["version"], project["license"], shipped, tuple(project["dependencies"]))
    document: dict[str, dict[str, object]] = json.loads(JsonV1Dot6(bom).output_as_string())
    del document["metadata"]["timestamp"]  # the same lock gives the same file
    text = json.dumps(document, indent=2) + "\n"
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        print(f"The bill does not fit CycloneDX's schema: {wrong}", file=sys.stderr)
        return 1
    path = ROOT / "dist" / f"{project['name']}-{project['version']}.cdx.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {len(shipped)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
