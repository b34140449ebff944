"""Whether a host's machines can send and take in their streams by themselves, and so what its agents offer.

Both processes show their host's certificate, and the one that takes the stream in has the other's subject on a list. So
a host at either end needs a certificate, of a subject that can be listed. It is looked at each time: certificates are
renewed, and this reads one small file.
"""

from typing import Final

from vm_migration.daemon.host_facts import DIRECT_MACHINE_STREAM, FEATURES, TRANSPORT_NOT_OFFERED
from vm_migration.errors import Refused
from vm_migration.link.subject_names import subject_names
from vm_migration.link.tls import TlsFiles
from vmm.process.control import Observation

_HINT: Final = "Configure its [tls], or use --transport grpc"


def hindrance(host: str, tls: TlsFiles | None) -> Observation | None:
    """Return what keeps this host's machines from it, and what to do; None where nothing does."""
    try:
        require_listed(tls)
    except Refused as error:
        return Observation(code=error.code, message=f"{host}: {error.message}. {error.hint}")
    return None


def features_offered(tls: TlsFiles | None) -> tuple[str, ...]:
    """Return what this version offers, but for what this host cannot do."""
    try:
        require_listed(tls)
    except Refused:
        return tuple(one for one in FEATURES if one != DIRECT_MACHINE_STREAM)
    return FEATURES


def require_listed(tls: TlsFiles | None) -> TlsFiles:
    """Return this host's certificate files, of a subject by which another host's machine can know this one's.

    Raises:
        Refused: It has none, or its certificate cannot be read, or its subject not be listed.
    """
    if tls is None:
        text = "A machine's process connects to another host's under TLS alone, and this host has no certificates"
        raise Refused(TRANSPORT_NOT_OFFERED, text, _HINT)
    try:
        subject_names(tls.certificate.read_bytes())
    except (OSError, ValueError) as error:
        text = f"{tls.certificate} is no certificate that can be read: {error}"
        raise Refused(TRANSPORT_NOT_OFFERED, text, _HINT) from error
    return tls
