"""Which version of MQTT a broker speaks: 5 if it can, else 3.1.1.

It is asked by a bare CONNECT of version 5, without will or user. Brokers of the older version answer with a refusal
that tells why (MQTT 3.1.1, 3.1.2.2). Some misread a fuller one, and wait for ever for what they take for its rest.
"""

import asyncio
import contextlib
import enum
import os
import ssl
from typing import Final

from vm_migration.daemon.broker_url import Broker, BrokerTls

ANSWER_SECONDS: Final = 5.0
_VERSION_SECONDS: Final = 2.0

_CONNECT_5: Final = bytes((0x10, 13, 0, 4, *b"MQTT", 5, 0x02, 0, 10, 0, 0, 0))
"""CONNECT: clean start, keep alive 10 s, no properties, the broker chooses the client identifier (MQTT 5, 3.1)."""
_DISCONNECT: Final = bytes((0xE0, 0))
_CONNACK: Final = 0x20
_UNSUPPORTED_VERSION: Final = frozenset({0x01, 0x84})
"""The refusal as MQTT 3.1.1 (3.2.2.3) and as MQTT 5 (3.2.2.2) write it."""


class BrokerGone(Exception):
    """The broker does not answer, refuses us, or the connection ended. The root and only kind of this package's."""


class Version(enum.Enum):
    """Versions of MQTT, as CONNECT numbers them (MQTT 5, 3.1.2.2)."""

    V311 = 4
    V5 = 5


async def find_version(broker: Broker, known: Version | None) -> Version:
    """Reach the broker, and ask for its version when that is not known yet.

    It is reached here first because this can be cancelled at any time; the library connects in a thread, which cannot.

    Raises:
        BrokerGone: It cannot be reached, or not under TLS as configured.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            context = tls_context(broker.tls) if broker.tls is not None else None
            reader, writer = await asyncio.open_connection(broker.host, broker.port, ssl=context)
    except TimeoutError:
        raise BrokerGone(f"{broker} does not answer") from None
    except OSError as error:
        raise BrokerGone(f"{broker}: {_reason(error)}") from None
    try:
        return known or await _ask(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def tls_context(tls: BrokerTls) -> ssl.SSLContext:
    """Return the context to meet a broker with.

    Raises:
        BrokerGone: A file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:  # ssl.SSLError is one
        raise BrokerGone(f"The TLS files for the broker cannot be used: {_reason(error)}") from None
    return context


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Version:
    try:
        async with asyncio.timeout(_VERSION_SECONDS):
            writer.write(_CONNECT_5)
            await writer.drain()
            kind, _, _, reason = await reader.readexactly(4)
            writer.write(_DISCONNECT)
            await writer.drain()
    except (TimeoutError, OSError, asyncio.IncompleteReadError):  # silent, or hung up: so not with 5
        return Version.V311
    return Version.V311 if kind != _CONNACK or reason in _UNSUPPORTED_VERSION else Version.V5


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) or error.errno is None or error.errno <= 0:
        return error.strerror or str(error)
    return os.strerror(error.errno)
