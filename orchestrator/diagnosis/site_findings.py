"""What is wrong with the site beside its machines: hosts that are silent, versions, what is left over. Pure."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from orchestrator.diagnosis.finding import RECOVER, Code, Finding, Severity
from orchestrator.diagnosis.views import OTHER_VERSION, HostView, Leftover, SiteView, Told
from orchestrator.host_standing import OTHER_HOST
from vm_migration.daemon.host_facts import VERSION, speaks

CLOCK_SECONDS: Final = 60.0
"""By which a clock may be off: logs and audit logs are read beside each other by it, and certificates end by it."""
_CLOCK_HINT: Final = "Have it keep time (chrony, systemd-timesyncd), or look at the clock of this one"


def site_findings(site: SiteView) -> tuple[Finding, ...]:
    """Return what is wrong with the hosts."""
    found: list[Finding] = []
    for host in site.hosts.values():
        found += _silent(host)
        found += _strangers(host)
        found += _clock(host)
        found += _versions(host)
        found += (left_over(host.host, one) for one in host.leftovers)
    return tuple(found)


def _silent(host: HostView) -> Iterator[Finding]:
    silent = [
        told.error
        for told in (host.source, host.dest)
        if told.error is not None and told.error.code not in {OTHER_VERSION, OTHER_HOST}
    ]
    if not silent:
        return
    reasons = "; ".join(dict.fromkeys(error.message for error in silent))
    nothing = "" if host.answers else "; nothing is known of what is there"
    hint = silent[0].hint or f"Start the agents of {host.host}"
    yield Finding(Code.HOST_SILENT, f"{reasons}{nothing}", hint, host=host.host)


def _strangers(host: HostView) -> Iterator[Finding]:
    for told in (host.source, host.dest):
        if told.error is not None and told.error.code == OTHER_HOST:
            yield Finding(Code.OTHER_HOST, told.error.message, told.error.hint, host=host.host)


def _clock(host: HostView) -> Iterator[Finding]:
    off = max(host.source.ahead, host.dest.ahead, key=abs)
    if abs(off) < CLOCK_SECONDS:
        return
    text = f"The clock of {host.host} is {timedelta(seconds=round(abs(off)))} {'ahead of' if off > 0 else 'behind'}"
    yield Finding(
        Code.CLOCK_OFF, f"{text} this one; no migration rests on it", _CLOCK_HINT, severity="notice", host=host.host
    )


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
