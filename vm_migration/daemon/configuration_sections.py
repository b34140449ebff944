"""The tables of viaduct.toml, as docs describe them. Paths are relative to the file that names them."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from vm_migration.daemon.broker_url import URL_ALLOWED, parse_broker
from vm_migration.daemon.etcd_place import ETCD_ALLOWED, EtcdTls, is_etcd, parse_etcd
from vm_migration.daemon.hooks import HookPoint
from vm_migration.errors import InvalidInput
from vm_migration.link.address import is_loopback, split_address
from vm_migration.link.identity import NAME_ALLOWED, is_name
from vm_migration.link.server_limits import USUAL
from vmm.assembly.field_kinds import AbsolutePath
from vmm.assembly.quantity_text import (
    DURATIONS_ALLOWED,
    RATES_ALLOWED,
    SIZES_ALLOWED,
    parse_duration,
    parse_rate,
    parse_size,
)
from vmm.assembly.specification import AddressBits, Backend, DeviceModel, ViommuMode

_ADDRESS_ALLOWED: Final = "host:port"
_BULK_ALLOWED: Final = "an IP address or a host name, without a port"
_STORE_ALLOWED: Final = f"sqlite:///absolute/path, or {ETCD_ALLOWED}"
_COMMANDS_ALLOWED: Final = "a list of commands, each a text or a list of texts"
_HOOK_SECONDS: Final = 30
_ARRIVAL_SECONDS: Final = 120
_MOST_ATTEMPTS: Final = 16

_Info = ValidationInfo[Mapping[str, Path] | None]
"""With the folder that relative paths start from."""


def _wrong(problem: str, allowed: str) -> PydanticCustomError:
    return PydanticCustomError("wrong", "{error}", {"error": problem, "allowed": allowed})


def _text(read: Callable[[str, _Info], object], allowed: str) -> BeforeValidator:
    """Return a reader of text; what it raises becomes a fault that says what is allowed."""

    def validate(value: object, info: _Info) -> object:
        if not isinstance(value, str):
            raise _wrong("Wrong type", f"text: {allowed}")
        try:
            return read(value, info)
        except InvalidInput as error:
            raise _wrong(error.message, allowed) from None
        except ValueError as error:
            raise _wrong(str(error), "") from None

    return BeforeValidator(validate)


def _name(value: str, _: _Info) -> str:
    if not is_name(value):
        raise InvalidInput("", f'"{value[:80]}" is not a name')
    return value


def _address(value: str, _: _Info) -> str:
    split_address(value)
    return value


def _bulk(value: str, _: _Info) -> str:
    plain = value.strip("[]")
    if not is_loopback(plain) and (not plain or any(sign in plain for sign in "/@ []")):
        raise InvalidInput("", f'"{value[:80]}" is not an address')
    return value


def _broker(value: str, _: _Info) -> str:
    parse_broker(value)
    return value


def _store(value: str, _: _Info) -> str:
    if is_etcd(value):
        parse_etcd(value, EtcdTls(Path()))  # which files those are is for [etcd] to say
    elif not value.startswith("sqlite:///"):
        raise InvalidInput("", f'"{value[:80]}" is not a store')
    return value


def _addresses(value: str, _: _Info) -> str:
    found = value.split(",")
    for address in found:
        split_address(address)
    if len(set(found)) != len(found):
        raise InvalidInput("", f'"{value[:80]}" names one twice')
    return value


def _path(value: str, info: _Info) -> Path:
    if not value or "\0" in value:
        raise InvalidInput("", "An empty path")
    return (info.context or {}).get("folder", Path()) / value


def _seconds(value: str, _: _Info) -> float:
    return parse_duration(value) / 1e9


def _commands(value: object) -> object:
    if not isinstance(value, list):
        raise _wrong("Wrong type", _COMMANDS_ALLOWED)
    return tuple(_command(command) for command in value)


def _command(command: object) -> tuple[str, ...]:
    if isinstance(command, list):
        words = tuple(word for word in command if isinstance(word, str))
        if len(words) != len(command):
            raise _wrong("Wrong type", _COMMANDS_ALLOWED)
    elif isinstance(command, str):
        try:
            words = tuple(shlex.split(command))
        except ValueError as error:
            raise _wrong(f'"{command[:80]}" cannot be split into words: {error}', _COMMANDS_ALLOWED) from None
    else:
        raise _wrong("Wrong type", _COMMANDS_ALLOWED)
    if not words or not words[0]:
        raise _wrong("An empty command", _COMMANDS_ALLOWED)
    return words


Name = Annotated[str, _text(_name, NAME_ALLOWED)]
Address = Annotated[str, _text(_address, _ADDRESS_ALLOWED)]
FilePath = Annotated[Path, _text(_path, "a path")]
Slots = Annotated[int, Field(ge=1, le=1024)]
Commands = Annotated[tuple[tuple[str, ...], ...], BeforeValidator(_commands)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SiteSection(_Table):
    """The site: its name, where its attempts are kept, its broker, and its orchestrators where they run as daemons."""

    name: Name = "default"
    store: Annotated[str, _text(_store, _STORE_ALLOWED)] | None = None
    mqtt: Annotated[str, _text(_broker, URL_ALLOWED)] | None = None
    orchestrator: Annotated[str, _text(_addresses, f"{_ADDRESS_ALLOWED}[,{_ADDRESS_ALLOWED} ...]")] | None = None

    @property
    def orchestrators(self) -> tuple[str, ...]:
        """The addresses of the site's orchestrators, in the order in which they are asked."""
        return tuple(self.orchestrator.split(",")) if self.orchestrator else ()


class EtcdSection(_Table):
    """How to get into an etcd at etcds://; TLS files that are not given here are those of [tls].

    `name` is what its members' certificates carry, where that is not the host of each one's address.
    """

    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None
    name: str | None = None


class MqttSection(_Table):
    """How to get into the broker; TLS files that are not given here are those of [tls].

    The password is here, or alone in a file, such as a credential that the service manager hands over.
    """

    user: str | None = None
    password: str | None = Field(default=None, repr=False)
    password_file: FilePath | None = None
    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None


class HostSection(_Table):
    """Where a host's two agents listen; `bulk` is its address in the migration network, `dest`'s host without it.

    `transport` is how memory travels to this host where an order does not say it. `bandwidth`, in bytes a second, is
    what all migrations together may take of its migration network each way; 0: they share nothing.
    """

    source: Address
    dest: Address
    bulk: Annotated[str, _text(_bulk, _BULK_ALLOWED)] | None = None
    transport: Literal["grpc", "direct", "sealed"] | None = None
    outgoing: Slots | None = None
    incoming: Slots | None = None
    bandwidth: Annotated[int, _text(lambda value, _: parse_rate(value), RATES_ALLOWED)] = 0

    @property
    def bulk_host(self) -> str:
        """Where pages are sent to."""
        return self.bulk.strip("[]") if self.bulk is not None else split_address(self.dest)[0]


class TlsSection(_Table):
    """The authority, and this process's own certificate and key."""

    ca: FilePath
    certificate: FilePath
    key: FilePath


class AgentSection(_Table):
    """What both agents of a host read; the budget, in bytes, is all the RAM that machines may have here.

    `arrival_patience` is for how many seconds an arrival that is not whole waits for a source that is silent. `units`
    is the service manager's socket that starts machines in units of their own; without it agents start them.
    """

    host: Name
    state_dir: FilePath = Path("/var/lib/viaduct")
    run_dir: FilePath = Path("/run/viaduct")
    memory_budget: Annotated[int, _text(lambda value, _: parse_size(value), SIZES_ALLOWED)]
    arrival_patience: Annotated[float, _text(_seconds, DURATIONS_ALLOWED)] = _ARRIVAL_SECONDS
    units: FilePath | None = None


class OfferSection(_Table):
    """What machines may have on this host, where that is less than this version can host.

    Both agents read it: one refuses to create what the host does not offer, the other to take it in.
    """

    device_models: Annotated[tuple[DeviceModel, ...], Field(strict=False)] = get_args(DeviceModel)
    backends: Annotated[tuple[Backend, ...], Field(strict=False)] = get_args(Backend)
    viommu_modes: Annotated[tuple[ViommuMode, ...], Field(strict=False)] = get_args(ViommuMode)
    viommu_address_bits: Annotated[tuple[AddressBits, ...], Field(strict=False)] = get_args(AddressBits)
    host_dirty_tracking: bool = True
    qemu: Annotated[tuple[AbsolutePath, ...], Field(strict=False, max_length=16)] = ()
    """Programs that may run as machines of kind qemu, with any arguments; none, where nobody lists them."""


class AuditSection(_Table):
    """Where calls that change something are written down; without it, where the daemon keeps its journals or store."""

    file: FilePath | None = None


class MetricsSection(_Table):
    """Where daemons leave their metrics, each in a file of its own, and where each answers a Prometheus that asks.

    Nowhere without it. Off loopback, whoever asks must show a certificate of the site.
    """

    folder: FilePath | None = None
    source: Address | None = None
    dest: Address | None = None
    orchestrator: Address | None = None


class TracesSection(_Table):
    """The collector of OpenTelemetry that spans of attempts are sent to, by OTLP over gRPC; nowhere without it.

    Off loopback over TLS, with these files, and those of [tls] for what is not given here.
    """

    endpoint: Address | None = None
    ca: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None


class LimitsSection(_Table):
    """What a daemon's server takes on (vm_migration.link.server_limits), and how many machines may leave or arrive.

    Agents refuse more than `attempts`; orchestrators ask for no more than `outgoing` of a host, and `incoming` to one.
    """

    connections: Annotated[int, Field(ge=16, le=65536)] = USUAL.connections
    handshake: Annotated[float, _text(_seconds, DURATIONS_ALLOWED), Field(ge=0.1, le=120)] = USUAL.handshake
    calls: Annotated[int, Field(ge=16, le=65536)] = USUAL.calls
    calls_per_second: Annotated[int, Field(ge=1, le=65536)] = USUAL.calls_per_second
    attempts: Slots = _MOST_ATTEMPTS
    outgoing: Slots = 1
    incoming: Slots = 1


class HooksSection(_Table):
    """The site's own commands; `deadline` is each one's, in seconds."""

    before_prepare: Commands = ()
    before_handoff: Commands = ()
    before_ready: Commands = ()
    after_active: Commands = ()
    after_abort: Commands = ()
    deadline: Annotated[float, _text(_seconds, DURATIONS_ALLOWED)] = _HOOK_SECONDS

    def commands(self, point: HookPoint) -> tuple[tuple[str, ...], ...]:
        """Return what runs at a point."""
        match point:
            case HookPoint.BEFORE_PREPARE:
                return self.before_prepare
            case HookPoint.BEFORE_HANDOFF:
                return self.before_handoff
            case HookPoint.BEFORE_READY:
                return self.before_ready
            case HookPoint.AFTER_ACTIVE:
                return self.after_active
            case HookPoint.AFTER_ABORT:
                return self.after_abort


class Document(_Table):
    """The whole file."""

    site: SiteSection = SiteSection()
    etcd: EtcdSection = EtcdSection()
    mqtt: MqttSection = MqttSection()
    host: dict[Name, HostSection] = Field(default_factory=dict)
    tls: TlsSection | None = None
    agent: AgentSection | None = None
    offer: OfferSection = OfferSection()
    audit: AuditSection = AuditSection()
    metrics: MetricsSection = MetricsSection()
    traces: TracesSection = TracesSection()
    limits: LimitsSection = LimitsSection()
    hooks: HooksSection = HooksSection()
