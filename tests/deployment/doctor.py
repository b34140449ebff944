"""What `viaduct doctor` finds at the deployed site."""

import msgspec

from tests.deployment.deployment import Deployment


class Finding(msgspec.Struct):
    """One finding, as far as it matters here."""

    code: str
    severity: str
    message: str
    host: str | None


class _Diagnosis(msgspec.Struct):
    findings: list[Finding]


def findings(site: Deployment) -> list[Finding]:
    """Ask the doctor, whatever it exits with."""
    told = site.viaduct("doctor", "--json")
    return msgspec.json.decode(told.out, type=_Diagnosis).findings
