"""When somebody should be told that a certificate ends. Pure."""

from datetime import datetime, timedelta
from typing import Final

from orchestrator.diagnosis.finding import Code, Finding, Severity

NOTICE: Final = timedelta(days=30)
PROBLEM: Final = timedelta(days=7)


def expiry_finding(whose: str, name: str, expires: datetime, now: datetime, *, host: str = "") -> Finding | None:
    """Return what to say of a certificate that ends soon, or has; `whose` says it in words, `name` names its file."""
    left = expires - now
    if left > NOTICE:
        return None
    severity: Severity = "notice" if left > PROBLEM else "problem"
    when = f"has ended on {expires:%Y-%m-%d}" if left <= timedelta(0) else f"ends on {expires:%Y-%m-%d %H:%M} UTC"
    return Finding(Code.CERTIFICATE_EXPIRES, f"{whose} {when}", _hint(name), severity=severity, host=host)


def expired_finding(whose: str, name: str, *, host: str = "") -> Finding:
    """Return what to say of a certificate that the handshake found to have ended."""
    return Finding(Code.CERTIFICATE_EXPIRES, f"{whose} has ended", _hint(name), host=host)


def _hint(name: str) -> str:
    return f"Where the authority lies: viaduct pki renew {name}; then put {name}.pem and {name}.key in their place"
