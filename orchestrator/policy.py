"""What a migration may cost and how it is done: the options of `viaduct migrate`, as the source agent gets them."""

from collections.abc import Collection
from typing import Final, Literal

import msgspec

from vm_migration.api.v1 import types_pb2 as pb
from vm_migration.daemon.host_facts import TRANSPORT_NOT_OFFERED
from vm_migration.errors import InvalidInput, Refused

OnTimeout = Literal["cancel", "force"]
Profile = Literal["gentle", "balanced", "urgent"]
Transport = Literal["grpc", "direct", "sealed"]
Compression = Literal["auto", "none", "lz4", "zstd"]
Verify = Literal["auto", "full", "none"]
MOST_STREAMS: Final = 16
MOST_PRIORITY: Final = 1_000_000
MEASURE_MS: Final = 1000
"""For how long a machine's writes are measured before it moves, unless somebody says otherwise."""

_VERIFY: Final = {
    "auto": pb.VERIFY_MODE_AUTO,
    "full": pb.VERIFY_MODE_FULL,
    "none": pb.VERIFY_MODE_NONE,
}
_ON_TIMEOUT: Final = {"cancel": pb.ON_TIMEOUT_CANCEL, "force": pb.ON_TIMEOUT_FORCE}


class MigrationPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One attempt's limits; the defaults are the contract's."""

    downtime_limit_ms: int = 300
    max_bandwidth_bytes_per_s: int = 0  # 0: unlimited
    timeout_ms: int = 600_000
    on_timeout: OnTimeout = "cancel"
    profile: Profile = "balanced"
    transport: Transport = "grpc"
    streams: int = 1
    compression: Compression = "auto"
    verify: Verify = "auto"

    def message(self) -> pb.Policy:
        """Return the policy as Begin carries it."""
        return pb.Policy(
            downtime_limit_ms=self.downtime_limit_ms,
            max_bandwidth_bytes_per_s=self.max_bandwidth_bytes_per_s,
            timeout_ms=self.timeout_ms,
            on_timeout=_ON_TIMEOUT[self.on_timeout],
            profile=self.profile,
            transport=self.transport,
            streams=self.streams,
            compression=self.compression,
            verify=_VERIFY[self.verify],
        )


def policy_from(message: pb.Policy) -> MigrationPolicy:
    """Read a policy from the wire; what it leaves open takes the contract's default.

    Raises:
        InvalidInput: A value that this version does not know.
    """
    told: dict[str, object] = {
        "downtime_limit_ms": message.downtime_limit_ms,
        "max_bandwidth_bytes_per_s": message.max_bandwidth_bytes_per_s,
        "timeout_ms": message.timeout_ms,
        "profile": message.profile,
        "transport": message.transport,
        "streams": message.streams,
        "compression": message.compression,
        "verify": next((name for name, value in _VERIFY.items() if value == message.verify), ""),
        "on_timeout": next((name for name, value in _ON_TIMEOUT.items() if value == message.on_timeout), ""),
    }
    try:
        return msgspec.convert({name: value for name, value in told.items() if value}, MigrationPolicy)
    except msgspec.ValidationError as error:
        raise InvalidInput("invalid-policy", f"The policy cannot be read: {error}", _HINT) from None


def require_offered(policy: MigrationPolicy) -> None:
    """Refuse what no attempt can be made with.

    Raises:
        InvalidInput: A number is out of its bounds.
    """
    if not 1 <= policy.streams <= MOST_STREAMS:
        raise InvalidInput("invalid-policy", f"{policy.streams} streams are not within 1 and {MOST_STREAMS}", _HINT)
    if policy.downtime_limit_ms < 1 or policy.timeout_ms < 1:
        raise InvalidInput("invalid-policy", "The downtime limit and the timeout must be at least 1 ms", _HINT)


def policy_to(policy: MigrationPolicy, configured: Transport | None, *, by_host: bool) -> MigrationPolicy:
    """Return the policy to a destination: `by_host` has what is configured for that say how memory travels.

    The destination's word counts, as it is who takes the streams in; gRPC where nothing is configured.
    """
    return msgspec.structs.replace(policy, transport=configured or "grpc") if by_host else policy


def require_transport(policy: MigrationPolicy, features: Collection[str], host: str) -> None:
    """Accept a destination that takes bulk streams in as the policy asks; none is chosen in its place.

    Raises:
        Refused: It does not offer that.
    """
    if (text := lacking_transport(policy.transport, features, host)) is not None:
        raise Refused(TRANSPORT_NOT_OFFERED, text, "Use --transport grpc, or update that host")


def lacking_transport(transport: Transport, features: Collection[str], host: str) -> str | None:
    """Return why memory cannot travel so to a host that offers these features; None where it can."""
    if transport == "grpc" or transport in features:
        return None
    return f"{host} takes no {transport} streams in"


_HINT: Final = "Leave the option out, or see `viaduct migrate --help` for what it accepts"
