"""What an attempt was begun with: its policy, and where it goes. Journalled, so that a restarted agent has it."""

from typing import Final

import msgspec

from vm_migration.api.v1 import types_pb2
from vm_migration.errors import InvalidInput
from vm_migration.handover.succession import UpdateTerms
from vm_migration.transfer.convergence import ConvergencePolicy, OnTimeout
from vm_migration.transfer.profiles import BALANCED, PROFILES

VERIFY_NAMES: Final = {
    types_pb2.VERIFY_MODE_AUTO: "auto",
    types_pb2.VERIFY_MODE_FULL: "full",
    types_pb2.VERIFY_MODE_NONE: "none",
}
COMPRESSIONS: Final = ("auto", "none", "lz4", "zstd")
MAX_STREAMS: Final = 16
GRPC: Final = "grpc"
DIRECT: Final = "direct"
SEALED: Final = "sealed"
_UPDATE_DOWNTIME_MS: Final = 300
_UPDATE_TIMEOUT_MS: Final = 60_000


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The policy in plain units, and the destination's addresses once Start has told them."""

    downtime_limit_ms: int
    timeout_ms: int
    force_on_timeout: bool
    max_bandwidth_bytes_per_s: int = 0
    verify: str = "auto"
    streams: int = 1
    transport: str = GRPC
    """How the bulk streams travel: over gRPC, or over connections of their own."""
    compression: str = "auto"
    profile: str = BALANCED.name
    control_address: str = ""
    bulk_address: str = ""
    began_at: float = 0.0
    """Seconds since 1970; 0 where an earlier version began it, which did not say."""
    update: UpdateTerms | None = None
    """Of an attempt whose destination is another process of the host; None of a migration."""

    def left_ms(self, now: float) -> float:
        """Return what is left of the attempt's time at a wall-clock time, which may have been set back or forth."""
        if not self.began_at:
            return self.timeout_ms
        return min(float(self.timeout_ms), max(0.0, self.timeout_ms - (now - self.began_at) * 1000))

    def convergence(self) -> ConvergencePolicy:
        """Return the part that the switchover decision looks at."""
        on_timeout = OnTimeout.FORCE if self.force_on_timeout else OnTimeout.CANCEL
        return ConvergencePolicy(
            self.downtime_limit_ms,
            self.timeout_ms,
            on_timeout,
            PROFILES.get(self.profile, BALANCED),  # a later version's agent may have written another
            self.max_bandwidth_bytes_per_s,
        )


def terms_of(policy: types_pb2.Policy) -> Terms:
    """Read the policy of a request.

    Raises:
        InvalidInput: All that is wrong with it, or that this version does not have.
    """
    wrong = []
    if policy.downtime_limit_ms <= 0:
        wrong.append("downtime_limit_ms must be above 0")
    if policy.timeout_ms <= 0:
        wrong.append("timeout_ms must be above 0")
    if policy.on_timeout not in (types_pb2.ON_TIMEOUT_CANCEL, types_pb2.ON_TIMEOUT_FORCE):
        wrong.append("on_timeout must be CANCEL or FORCE")
    if policy.verify not in VERIFY_NAMES:
        wrong.append("verify must be AUTO, FULL or NONE")
    if policy.transport not in ("", GRPC, DIRECT, SEALED):
        wrong.append(f"transport {policy.transport!r} is not one of this version's: {GRPC}, {DIRECT}, {SEALED}")
    if policy.compression not in ("", *COMPRESSIONS):
        wrong.append(f"compression {policy.compression!r} is not one of this version's: {', '.join(COMPRESSIONS)}")
    if policy.profile not in ("", *PROFILES):
        wrong.append(f"profile {policy.profile!r} is not one of this version's: {', '.join(PROFILES)}")
    if policy.streams > MAX_STREAMS:
        wrong.append(f"streams must be at most {MAX_STREAMS}")
    if wrong:
        raise InvalidInput("invalid-policy", "; ".join(wrong), "Correct the policy and ask again")
    return Terms(
        downtime_limit_ms=policy.downtime_limit_ms,
        timeout_ms=policy.timeout_ms,
        force_on_timeout=policy.on_timeout == types_pb2.ON_TIMEOUT_FORCE,
        max_bandwidth_bytes_per_s=policy.max_bandwidth_bytes_per_s,
        verify=VERIFY_NAMES[policy.verify],
        streams=max(1, policy.streams),
        transport=policy.transport or GRPC,
        profile=policy.profile or BALANCED.name,
        compression=policy.compression or "auto",
    )


def update_terms(mode: str) -> Terms:
    """Return the terms of an update in a mode: nothing is sent anywhere, and only the pause has a bound."""
    return Terms(
        downtime_limit_ms=_UPDATE_DOWNTIME_MS,
        timeout_ms=_UPDATE_TIMEOUT_MS,
        force_on_timeout=False,
        transport="",
        update=UpdateTerms(mode),
    )


def encode(terms: Terms) -> str:
    """Return the terms as the journal keeps them."""
    return msgspec.json.encode(terms).decode()


def decode(text: str) -> Terms:
    """Return the terms of a journal's record."""
    return msgspec.json.decode(text, type=Terms)
