"""What is wrong with the site beside its machines: hosts that are silent, versions, what is left over. Pure."""

from collections.abc import Iterator

from orchestrator.diagnosis.finding import RECOVER, Code, Finding, Severity
from orchestrator.diagnosis.views import OTHER_VERSION, HostView, Leftover, SiteView, Told
from vm_migration.daemon.host_facts import VERSION, speaks


def site_findings(site: SiteView) -> tuple[Finding, ...]:
    """Return what is wrong with the hosts."""
    found: list[Finding] = []
    for host in site.hosts.values():
        found += _silent(host)
        found += _versions(host)
        found += (left_over(host.host, one) for one in host.leftovers)
    return tuple(found)


def _silent(host: HostView) -> Iterator[Finding]:
    silent = [
        told.error for told in (host.source, host.dest) if told.error is not None and told.error.code != OTHER_VERSION
    ]
    if not silent:
        return
    reasons = "; ".join(dict.fromkeys(error.message for error in silent))
    nothing = "" if host.answers else "; nothing is known of what is there"
    hint = silent[0].hint or f"Start the agents of {host.host}"
    yield Finding(Code.HOST_SILENT, f"{reasons}{nothing}", hint, host=host.host)


def _versions(host: HostView) -> Iterator[Finding]:
    told: dict[str, Told] = {"source": host.source, "dest": host.dest}
    if any(one.error is not None and one.error.code == OTHER_VERSION for one in told.values()):
        text = f"The agents of {host.host} are of a version that tells no journals"
        yield _version(host, text, "problem")
        return
    others = {one.version for one in told.values() if one.version and one.version != VERSION}
    for version in sorted(others):
        severity: Severity = "notice" if speaks(version) else "problem"
        yield _version(host, f"An agent of {host.host} is version {version}, and this is {VERSION}", severity)


def _version(host: HostView, text: str, severity: Severity) -> Finding:
    return Finding(Code.VERSION, text, f"Install {VERSION} on {host.host}", severity=severity, host=host.host)


def left_over(host: str, one: Leftover) -> Finding:
    """Return the finding of something that no journal of its host accounts for."""
    if one.kind == "folder":
        text = f"{host} keeps the folder {one.path} of machine {one.machine}, which is not there by its journal"
        hint = f"{RECOVER}; where it stays and no process of it lives, remove it"
        return Finding(Code.LEFTOVER_FOLDER, text, hint, host=host, machine=one.machine)
    text = f"{host} runs process {one.pid} ({one.kind}) of machine {one.machine}, which no journal of it accounts for"
    hint = f"{RECOVER}; where it stays: kill {one.pid} on {host}"
    return Finding(Code.LEFTOVER_PROCESS, text, hint, host=host, machine=one.machine)
