"""Addresses as the configuration writes them: `host:port`, `10.0.0.1:7001`, `[::1]:7001`."""

import ipaddress

from vm_migration.errors import InvalidInput

_HINT = "Write host:port, such as 10.0.0.1:7001 or [::1]:7001"


def split_address(address: str) -> tuple[str, int]:
    """Return host and port.

    Raises:
        InvalidInput: Not an address.
    """
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    if not colon or not bare or (":" in bare) != bracketed or any(sign in bare for sign in "[]/@ \t"):
        raise InvalidInput("bad-address", f'"{address[:80]}" is not an address', _HINT)
    if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise InvalidInput("bad-address", f'"{address[:80]}" has no valid port', _HINT)
    return bare, int(port)


def join_address(host: str, port: int) -> str:
    """Return the text that `split_address` reads back."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can be meant; of names, localhost alone is trusted for that."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_plaintext(address: str) -> None:
    """Let plaintext be used on loopback only.

    Raises:
        InvalidInput: The address is not a loopback address.
    """
    host, _ = split_address(address)
    if not is_loopback(host):
        raise InvalidInput(
            "plaintext-refused",
            f"Plaintext is refused at {address}, which is not a loopback address",
            "Configure [tls], or use 127.0.0.1 with --insecure",
        )
