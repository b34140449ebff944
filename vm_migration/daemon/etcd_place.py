"""Where the site's etcd is: `etcd://host:port[,host:port ...]` on loopback, and `etcds://...`, with TLS, anywhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vm_migration.errors import InvalidInput
from vm_migration.link.address import refuse_plaintext, split_address

SCHEMES: Final = ("etcd://", "etcds://")
ETCD_ALLOWED: Final = "etcd://127.0.0.1:2379 or etcds://host:port[,host:port ...]"


@dataclass(frozen=True, slots=True)
class EtcdTls:
    """TLS to etcd: its authority, a certificate with its key where it asks for one, and the name that it shows.

    Without a name, each member's certificate must carry the host of its address.
    """

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class EtcdPlace:
    """The members' addresses in the order in which they are tried, and TLS, or None on loopback."""

    addresses: tuple[str, ...]
    tls: EtcdTls | None = None

    def __str__(self) -> str:
        return f"{SCHEMES[self.tls is not None]}{','.join(self.addresses)}"


def is_etcd(store: str) -> bool:
    """Say whether a store's URL is one of etcd."""
    return store.startswith(SCHEMES)


def parse_etcd(url: str, tls: EtcdTls | None = None) -> EtcdPlace:
    """Read a URL; `tls` is used for etcds only.

    Raises:
        InvalidInput: Not such a URL, a member twice, plaintext beyond loopback, or TLS without an authority.
    """
    secured = url.startswith(SCHEMES[1])
    addresses = tuple(url.removeprefix(SCHEMES[secured]).removesuffix("/").split(","))
    for address in addresses:
        split_address(address)
        if not secured:
            refuse_plaintext(address)
    if len(set(addresses)) != len(addresses):
        raise InvalidInput("bad-store", f'"{url[:80]}" names a member twice', f"Write {ETCD_ALLOWED}")
    if secured and tls is None:
        hint = "Add [tls], or `ca` in [etcd], to viaduct.toml"
        raise InvalidInput("no-tls", "No authority is configured to know etcd by", hint)
    return EtcdPlace(addresses, tls if secured else None)
