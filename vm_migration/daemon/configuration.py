"""viaduct.toml and the VIADUCT_* environment, read together and checked as one.

::

    --config FILE, or VIADUCT_CONFIG, or /etc/viaduct/viaduct.toml if it is there, or nothing
    VIADUCT_SITE_NAME=home             overrides  [site] name; so for every key of the sections below
    VIADUCT_INSECURE=1                 plaintext on loopback, for a site without [tls]

Everything that is wrong is reported at once: file or variable, key, problem, allowed values. Other VIADUCT_* variables
are left alone: hooks get some (vm_migration.daemon.hooks), and may call `viaduct` themselves.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ValidationError

from vm_migration.daemon.broker_url import Broker, BrokerTls, parse_broker
from vm_migration.daemon.configuration_sections import (
    AgentSection,
    AuditSection,
    Document,
    EtcdSection,
    HooksSection,
    HostSection,
    LimitsSection,
    MetricsSection,
    MqttSection,
    OfferSection,
    SiteSection,
    TlsSection,
    TracesSection,
)
from vm_migration.daemon.etcd_place import EtcdPlace, EtcdTls, is_etcd, parse_etcd
from vm_migration.daemon.secret_file import MODES_ALLOWED, open_to_others, read_secret
from vm_migration.errors import InvalidInput
from vm_migration.link.address import is_loopback, split_address
from vm_migration.link.server_limits import ServerLimits
from vm_migration.link.tls import TlsFiles
from vmm.assembly.document_faults import Fault, InvalidDocument, faults_of, read_toml

SYSTEM_FILE: Final = Path("/etc/viaduct/viaduct.toml")
_SECTIONS: Final[dict[str, type[BaseModel]]] = {
    "site": SiteSection,
    "etcd": EtcdSection,
    "mqtt": MqttSection,
    "tls": TlsSection,
    "agent": AgentSection,
    "audit": AuditSection,
    "metrics": MetricsSection,
    "traces": TracesSection,
}
VARIABLES: Final = {
    f"VIADUCT_{section}_{key}".upper(): (section, key)
    for section, model in _SECTIONS.items()
    for key in model.model_fields
}
_PATHS: Final = {"ca", "certificate", "key", "state_dir", "run_dir", "units", "folder", "file", "password_file"}
_TRUTH: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a process of the site works with; checked."""

    site: SiteSection
    mqtt: MqttSection
    host: Mapping[str, HostSection]
    tls: TlsSection | None
    agent: AgentSection | None
    audit: AuditSection
    metrics: MetricsSection
    limits: LimitsSection
    hooks: HooksSection
    insecure: bool
    offer: OfferSection = field(default_factory=OfferSection)
    traces: TracesSection = field(default_factory=TracesSection)
    etcd: EtcdSection = field(default_factory=EtcdSection)

    def tls_files(self) -> TlsFiles | None:
        """Return the TLS files, or None for plaintext on loopback, which somebody asked for.

        Raises:
            InvalidInput: No [tls], and nobody asked for plaintext.
        """
        if self.insecure:
            return None
        if self.tls is None:
            raise InvalidInput(
                "no-tls", "No certificate is configured", "Add [tls] to viaduct.toml; on loopback: VIADUCT_INSECURE=1"
            )
        return TlsFiles(self.tls.ca, self.tls.certificate, self.tls.key)

    def server_limits(self) -> ServerLimits:
        """Return what a server of this process takes on."""
        said = self.limits
        return ServerLimits(said.connections, said.handshake, said.calls, said.calls_per_second)

    def broker(self) -> Broker | None:
        """Return the site's broker, or None where status is not published.

        Raises:
            InvalidInput: The password's file, which could be read when the configuration was, cannot any more.
        """
        if self.site.mqtt is None:
            return None
        mine = self.tls
        tls = BrokerTls(
            ca=self.mqtt.ca or (mine.ca if mine else None),
            certificate=self.mqtt.certificate or (mine.certificate if mine else None),
            key=self.mqtt.key or (mine.key if mine else None),
        )
        password = self.mqtt.password if self.mqtt.password_file is None else read_secret(self.mqtt.password_file)
        return parse_broker(self.site.mqtt, user=self.mqtt.user, password=password, tls=tls)

    def etcd_place(self) -> EtcdPlace | None:
        """Return where the site's etcd is, or None where its store is another.

        Raises:
            InvalidInput: TLS is asked for, and no authority is configured.
        """
        if self.site.store is None or not is_etcd(self.site.store):
            return None
        mine, said = self.tls, self.etcd
        ca = said.ca or (mine.ca if mine else None)
        if ca is None:
            return parse_etcd(self.site.store)
        own = mine if mine and said.certificate is None else None
        certificate, key = (own.certificate, own.key) if own else (said.certificate, said.key)
        return parse_etcd(self.site.store, EtcdTls(ca, certificate, key, said.name))


def load(path: Path | None, environment: Mapping[str, str], *, insecure: bool = False) -> Configuration:
    """Read and check the configuration; `insecure` is the command line's wish for plaintext.

    Raises:
        InvalidDocument: Names everything that is wrong.
    """
    file = path or _configured_file(environment)
    document = {} if file is None else read_toml(file)
    origins = _overlay(document, environment)
    text = "" if file is None else str(file)
    faults = [*_open_secret(file, document, origins)]
    if environment.get("VIADUCT_INSECURE", "").lower() not in _TRUTH:
        faults.append(Fault("environment", "VIADUCT_INSECURE", "Neither yes nor no", "1 or 0"))
    folder = Path() if file is None else file.parent
    checked = None
    try:
        checked = Document.model_validate(document, context={"folder": folder.absolute()})
    except ValidationError as error:
        faults += [_placed(fault, origins) for fault in faults_of(error, text, Document)]
    else:
        faults += [_placed(fault, origins) for fault in _conflicts(checked, text)]
    if faults or checked is None:
        raise InvalidDocument(faults)
    wanted = insecure or _TRUTH[environment.get("VIADUCT_INSECURE", "").lower()]
    return Configuration(
        checked.site,
        checked.mqtt,
        checked.host,
        checked.tls,
        checked.agent,
        checked.audit,
        checked.metrics,
        checked.limits,
        checked.hooks,
        insecure=wanted,
        offer=checked.offer,
        traces=checked.traces,
        etcd=checked.etcd,
    )


def _configured_file(environment: Mapping[str, str]) -> Path | None:
    named = environment.get("VIADUCT_CONFIG")
    if named:
        return Path(named)
    return SYSTEM_FILE if SYSTEM_FILE.exists() else None


def _overlay(document: dict[str, object], environment: Mapping[str, str]) -> dict[str, str]:
    """Put the environment's values over the document's; return the variable of each key that came from one."""
    origins = {}
    for variable, (section, key) in VARIABLES.items():
        value = environment.get(variable)
        if value is None:
            continue
        table = document.setdefault(section, {})
        if isinstance(table, dict):  # else the section's own fault says enough
            is_path = key in _PATHS
            table[key] = str(Path(value).absolute()) if is_path and value else value
            origins[f"{section}.{key}"] = variable
    return origins


def _placed(fault: Fault, origins: Mapping[str, str]) -> Fault:
    variable = origins.get(fault.key)
    return fault if variable is None else Fault("environment", variable, fault.problem, fault.allowed)


def _open_secret(file: Path | None, document: Mapping[str, object], origins: Mapping[str, str]) -> Iterator[Fault]:
    mqtt = document.get("mqtt")
    if file is None or "mqtt.password" in origins or not isinstance(mqtt, dict) or "password" not in mqtt:
        return
    wrong = open_to_others(file)
    if wrong is not None:
        yield Fault(str(file), "mqtt.password", wrong, MODES_ALLOWED)


def _conflicts(document: Document, file: str) -> Iterator[Fault]:
    """Yield what is wrong between keys that are each right."""
    if document.agent is not None and document.host and document.agent.host not in document.host:
        yield Fault(file, "agent.host", f"There is no [host.{document.agent.host}]", ", ".join(document.host))
    taken: dict[str, str] = {}
    for name, host in document.host.items():
        for side, address in (("source", host.source), ("dest", host.dest)):
            key = f"host.{name}.{side}"
            if address in taken and split_address(address)[1] != 0:
                yield Fault(file, key, f"{address} is also {taken[address]}", "an address of its own")
            taken[address] = key
    if (document.etcd.certificate is None) != (document.etcd.key is None):
        yield Fault(file, "etcd.key", "A certificate and its key come together", "")
    yield from _broker_conflicts(document.site.mqtt, document.mqtt, file)
    if document.hooks.deadline <= 0:
        yield Fault(file, "hooks.deadline", "No time at all", "above 0")


def _broker_conflicts(url: str | None, mqtt: MqttSection, file: str) -> Iterator[Fault]:
    """Yield what is wrong with how the broker is met, secrets that others can read among it."""
    if (mqtt.certificate is None) != (mqtt.key is None):
        yield Fault(file, "mqtt.key", "A certificate and its key come together", "")
    if mqtt.key is not None and mqtt.key.exists() and (wrong := open_to_others(mqtt.key)) is not None:
        yield Fault(file, "mqtt.key", f"{mqtt.key}: {wrong}", MODES_ALLOWED)
    if mqtt.password is None and mqtt.password_file is None:
        return
    secret = "mqtt.password" if mqtt.password_file is None else "mqtt.password_file"
    if mqtt.user is None:
        yield Fault(file, "mqtt.user", "A password without a user", "")
    if mqtt.password is not None and mqtt.password_file is not None:
        yield Fault(file, "mqtt.password_file", "The password is given twice", "password or password_file")
    elif mqtt.password_file is not None:
        try:
            read_secret(mqtt.password_file)
        except InvalidInput as error:
            yield Fault(file, "mqtt.password_file", error.message, error.hint)
    broker = None if url is None else parse_broker(url)
    if broker is not None and broker.tls is None and not is_loopback(broker.host):
        yield Fault(file, secret, f"It would travel to {broker} for all to read", "a broker at mqtts://")
