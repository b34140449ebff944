"""Who is at the other end: the role and the name that a certificate vouches for.

A certificate carries `viaduct://<site>/<role>/<name>` as its only URI among the subject's alternative names. The site's
authority signs nothing else, so whoever passes the handshake is who the URI says.
"""

import enum
import re
from dataclasses import dataclass
from typing import Final, TypeVar

import grpc.aio

from vm_migration.errors import InvalidInput, Unauthorised

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_SCHEME: Final = "viaduct://"
NAME_ALLOWED: Final = "1 to 63 of a-z, 0-9 and -, neither first nor last a -"

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Role(enum.StrEnum):
    """What an identity is for; vm_migration.link.authorisation says what each may do."""

    HOST = "host"
    ORCHESTRATOR = "orchestrator"
    OPERATOR = "operator"
    VIEWER = "viewer"


def is_name(text: str) -> bool:
    """Return whether the text can name a site, a host or a person: it is a DNS label in lower case (RFC 1123, 2.1)."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Identity:
    """A role and a name within a site."""

    site: str
    role: Role
    name: str

    def __post_init__(self) -> None:
        for what, text in (("site", self.site), ("name", self.name)):
            if not is_name(text):
                raise InvalidInput(
                    "bad-name", f'"{text[:80]}" cannot be the {what} of an identity', f"Use {NAME_ALLOWED}"
                )

    @property
    def uri(self) -> str:
        """The identity as a certificate carries it."""
        return f"{_SCHEME}{self.site}/{self.role}/{self.name}"

    @classmethod
    def parse(cls, uri: str) -> "Identity":
        """Read the URI of a certificate.

        Raises:
            InvalidInput: It is not the URI of an identity.
        """
        parts = uri.removeprefix(_SCHEME).split("/")
        if not uri.startswith(_SCHEME) or len(parts) != 3 or parts[1] not in set(Role):
            raise InvalidInput(
                "bad-identity", f'"{uri[:200]}" is not the URI of an identity', "Issue it with viaduct pki"
            )
        return cls(site=parts[0], role=Role(parts[1]), name=parts[2])


def peer_identity(context: grpc.aio.ServicerContext[_Request, _Response]) -> Identity | None:
    """Return who makes this call, or None on a plaintext connection.

    Raises:
        Unauthorised: The peer's certificate names nobody, or more than one.
    """
    facts = context.auth_context()
    if list(facts.get("transport_security_type", ())) != [b"ssl"]:
        return None
    uris = [value.decode(errors="replace") for value in facts.get("peer_uri", ())]
    if not uris:  # older gRPC lists every alternative name under one key
        names = [value.decode(errors="replace") for value in facts.get("x509_subject_alternative_name", ())]
        uris = [name for name in names if name.startswith(_SCHEME)]
    if len(uris) != 1:
        raise Unauthorised("no-identity", "The peer's certificate names nobody", "Issue it with viaduct pki issue")
    try:
        return Identity.parse(uris[0])
    except InvalidInput as error:
        raise Unauthorised("no-identity", error.message, error.hint) from None
