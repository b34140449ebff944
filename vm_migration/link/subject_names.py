"""Whom a certificate is of, as programs with GnuTLS write it: what a list of who may come in is compared with. Pure.

GnuTLS joins the parts of a subject with commas, and has begun at either end of it in its versions. So a subject has
two names here, of which a list admits both: they say the same. What it would write in a way of its own, escaped or as
numbers, has none.
"""

import re
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from vm_migration.errors import Refused

SUBJECT_UNLISTED: Final = "subject-unlisted"
_ATTRIBUTES: Final = frozenset({"C", "CN", "DC", "L", "O", "OU", "ST"})
_PLAIN: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._@:/()'-]*[A-Za-z0-9.)])?")


def subject_names(certificate: bytes) -> tuple[str, ...]:
    """Return the names of the subject of a certificate in PEM.

    Raises:
        Refused: It has none that could be listed.
        ValueError: It is no certificate.
    """
    subject = x509.load_pem_x509_certificate(certificate).subject
    parts = []
    for part in subject.rdns:
        attributes = list(part)
        if len(attributes) != 1:
            raise _unlisted(subject)
        name, value = attributes[0].rfc4514_attribute_name, attributes[0].value
        if name not in _ATTRIBUTES or not isinstance(value, str) or _PLAIN.fullmatch(value) is None:
            raise _unlisted(subject)
        parts.append(f"{name}={value}")
    if not parts:
        raise _unlisted(subject)
    return tuple(dict.fromkeys((",".join(parts), ",".join(reversed(parts)))))


def first_certificate(chain: bytes) -> bytes:
    """Return the certificate that a PEM is about, without those of authorities that may follow it.

    Raises:
        ValueError: It holds none.
    """
    return x509.load_pem_x509_certificates(chain)[0].public_bytes(Encoding.PEM)


def _unlisted(subject: x509.Name) -> Refused:
    text = f"A certificate's subject cannot be put on a list of who may come in: {subject.rfc4514_string()[:200]!r}"
    return Refused(SUBJECT_UNLISTED, text, "Issue it with viaduct pki issue, or use --transport grpc")
