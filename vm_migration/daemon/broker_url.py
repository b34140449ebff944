"""Where the site's MQTT broker is: `mqtt://host[:1883]` or `mqtts://host[:8883]`.

User and password come from the configuration file or the environment, never in the URL: URLs end up on command
lines.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from vm_migration.errors import InvalidInput

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
URL_ALLOWED: Final = "mqtt://host[:port] or mqtts://host[:port]"


@dataclass(frozen=True, slots=True)
class BrokerTls:
    """TLS to a broker: the authority (None: the system's), and a certificate with its key when the broker asks."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker and how to get in; the password never shows in a representation."""

    host: str
    port: int
    tls: BrokerTls | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{'mqtt' if self.tls is None else 'mqtts'}://{self.host}:{self.port}"


def parse_broker(
    url: str, *, user: str | None = None, password: str | None = None, tls: BrokerTls | None = None
) -> Broker:
    """Read a broker's URL; `tls` is used for mqtts only.

    Raises:
        InvalidInput: Not such a URL, or one with a user or a password in it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _bad(url) from None
    if "@" in parts.netloc:
        raise InvalidInput("password-in-url", "The broker's URL holds a user", "Set [mqtt] user and password instead")
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise _bad(url)
    secured = parts.scheme == "mqtts"
    return Broker(
        host=parts.hostname,
        port=_PORTS[parts.scheme] if port is None else port,
        tls=(tls or BrokerTls()) if secured else None,
        user=user,
        password=password,
    )


def _bad(url: str) -> InvalidInput:
    return InvalidInput("bad-broker-url", f'"{url[:200]}" is not the URL of a broker', f"Write {URL_ALLOWED}")
