"""Errors of vm_migration.errors across gRPC: one table, both directions.

::

    raise Stale("epoch", "...", "...")  --server-->  ABORTED, details = message
                                                     viaduct-kind: stale   viaduct-code: epoch   viaduct-hint-bin: ...
    Stale("epoch", "...", "...")        <--client--

The kind travels by name, since several kinds share one status code. A status without a kind comes from gRPC itself:
UNAVAILABLE and DEADLINE_EXCEEDED mean that nobody answered, from which nothing may be concluded.
"""

from typing import Final

import grpc
import grpc.aio

from vm_migration.errors import (
    AttemptFailed,
    Cancelled,
    InternalError,
    InvalidInput,
    MachineLost,
    MigrationError,
    Missed,
    Refused,
    Stale,
    Unauthorised,
    Unreachable,
    Unresolved,
)

KIND: Final = "viaduct-kind"
CODE: Final = "viaduct-code"
HINT: Final = "viaduct-hint-bin"

_TEXT_LIMIT: Final = 1000
"""Characters of a message or a hint: the metadata of one call has 8 KiB in all."""

_KINDS: Final[dict[str, tuple[type[MigrationError], grpc.StatusCode]]] = {
    "invalid-input": (InvalidInput, grpc.StatusCode.INVALID_ARGUMENT),
    "refused": (Refused, grpc.StatusCode.FAILED_PRECONDITION),
    "stale": (Stale, grpc.StatusCode.ABORTED),
    "missed": (Missed, grpc.StatusCode.OUT_OF_RANGE),
    "unauthorised": (Unauthorised, grpc.StatusCode.PERMISSION_DENIED),
    "unreachable": (Unreachable, grpc.StatusCode.UNAVAILABLE),
    "attempt-failed": (AttemptFailed, grpc.StatusCode.ABORTED),
    "cancelled": (Cancelled, grpc.StatusCode.CANCELLED),
    "unresolved": (Unresolved, grpc.StatusCode.FAILED_PRECONDITION),
    "machine-lost": (MachineLost, grpc.StatusCode.DATA_LOSS),
    "internal": (InternalError, grpc.StatusCode.INTERNAL),
}
_BY_CLASS: Final = {kind: (name, code) for name, (kind, code) in _KINDS.items()}

Metadata = tuple[tuple[str, str | bytes], ...]


def to_status(error: MigrationError) -> tuple[grpc.StatusCode, str, Metadata]:
    """Return status code, details and trailing metadata of an error; a package's own kind leaves as its root."""
    name, code, message, hint = kind_of_error(error)
    return _KINDS[name][1], message, ((KIND, name), (CODE, code), (HINT, hint.encode()))


def kind_of_error(error: MigrationError) -> tuple[str, str, str, str]:
    """Return an error as texts: its kind's name, its code, message and hint, none of them long."""
    name, _ = next(_BY_CLASS[kind] for kind in type(error).__mro__ if kind in _BY_CLASS)
    return name, error.code, _clipped(error.message), _clipped(error.hint)


def error_of_kind(name: str, code: str, message: str, hint: str) -> MigrationError:
    """Return the error of what `kind_of_error` returned; a kind that this version lacks is a failed attempt."""
    kind, _ = _KINDS.get(name, (AttemptFailed, None))
    return kind(code, message, hint)


def from_rpc_error(error: grpc.aio.AioRpcError, peer: str) -> MigrationError:
    """Return the error that the peer raised, or what gRPC's own status means; `peer` names host and address."""
    facts = {str(key): value for key, value in error.trailing_metadata() or ()}
    kind = _KINDS.get(_text(facts.get(KIND)))
    if kind is not None:
        return kind[0](_text(facts.get(CODE)), error.details() or "", _text(facts.get(HINT)))
    return _of_grpc(error.code(), error.details() or "", peer)


def cut_off(peer: str) -> MigrationError:
    """Return what a call has come to whose channel was closed on this side."""
    return _of_grpc(grpc.StatusCode.CANCELLED, "", peer)


def _of_grpc(code: grpc.StatusCode, details: str, peer: str) -> MigrationError:
    if code is grpc.StatusCode.UNAVAILABLE and any(word in details.lower() for word in _TLS_WORDS):
        return Unreachable("tls", f"{peer} and this side do not accept each other's certificates", _TLS_HINT)
    if code not in _GRPC_OWN:
        return InternalError("remote-fault", f"{peer} answered {code.name}", "See the log of its agent")
    kind, name, message, hint = _GRPC_OWN[code]
    return kind(name, message.format(peer=peer), hint)


_NOT_KNOWN: Final = "Ask again; what it did is not known"
_GRPC_OWN: Final[dict[grpc.StatusCode, tuple[type[MigrationError], str, str, str]]] = {
    grpc.StatusCode.UNAVAILABLE: (
        Unreachable,
        "unreachable",
        "{peer} does not answer",
        "Check the address, that its agent runs, and the certificates",
    ),
    grpc.StatusCode.DEADLINE_EXCEEDED: (Unreachable, "deadline", "{peer} did not answer in time", _NOT_KNOWN),
    grpc.StatusCode.CANCELLED: (Unreachable, "call-cancelled", "The call to {peer} was cut off", _NOT_KNOWN),
    grpc.StatusCode.UNAUTHENTICATED: (
        Unauthorised,
        "not-authorised",
        "{peer} refuses this identity",
        "Use another certificate",
    ),
    grpc.StatusCode.PERMISSION_DENIED: (
        Unauthorised,
        "not-authorised",
        "{peer} refuses this identity",
        "Use another certificate",
    ),
    grpc.StatusCode.UNIMPLEMENTED: (
        Refused,
        "not-offered",
        "{peer} does not offer this call",
        "Check that both sides run one version",
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (Refused, "too-large", "A message with {peer} is over the limit", ""),
}
_TLS_WORDS: Final = ("handshake failed", "certificate", "verification")
"""gRPC gives no other sign of it."""
_TLS_HINT: Final = "Compare both with viaduct pki show: same authority, valid today, named as configured"


def _clipped(text: str) -> str:
    return text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 3] + "..."


def _text(value: str | bytes | None) -> str:
    if value is None:
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
