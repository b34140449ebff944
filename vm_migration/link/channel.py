"""Channels to agents, and the options that both ends must agree on.

A peer that is gone is noticed by keepalive within 20 s when nothing is being written. That is not enough while a stream
writes (grpc#14717), nor for the handoff: every call has a deadline of its own (vm_migration.link.status.call).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import grpc
import grpc.aio

from vm_migration.link.address import refuse_plaintext, split_address
from vm_migration.link.tls import Stamp, TlsFiles, channel_credentials

CONTROL_MESSAGE_LIMIT: Final = 8 << 20

Options = Sequence[tuple[str, int | str]]
OpenChannel = Callable[[str, TlsFiles | None, str], grpc.aio.Channel]
"""`open_channel`, or what stands in for the network in a rehearsal."""

KEEPALIVE: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Since grpc#34647 its default of 60 s would override keepalive_timeout.
    ("grpc.http2.ping_timeout_ms", 15_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)
SERVER_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    *KEEPALIVE,
    # Below the client's keepalive_time, or the server answers its pings with ENHANCE_YOUR_CALM and hangs up.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    # A second agent on the same port is a mistake to be told, not a load to be shared.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", CONTROL_MESSAGE_LIMIT),
    ("grpc.max_send_message_length", CONTROL_MESSAGE_LIMIT),
)
CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    *KEEPALIVE,
    ("grpc.http2.min_time_between_pings_ms", 10_000),
    # Channels of one process to one peer would share a connection otherwise, and several streams would be one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", CONTROL_MESSAGE_LIMIT),
    ("grpc.max_send_message_length", CONTROL_MESSAGE_LIMIT),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    # Who asks an agent that has just come back must not be told that it is away because it was.
    ("grpc.max_reconnect_backoff_ms", 500),
    # Before a server does (vm_migration.link.server_limits): a call that meets one that is just closing would fail.
    # And not much sooner: after a long round the next call is made while the guest stands still.
    ("grpc.client_idle_timeout_ms", 240_000),
    # A proxy named in the environment is for the web, not for hosts of this site.
    ("grpc.enable_http_proxy", 0),
    # Calls are repeated by those who know that they may be.
    ("grpc.enable_retries", 0),
)


def open_channel(address: str, tls: TlsFiles | None, peer: str) -> grpc.aio.Channel:
    """Return a channel to `host:port`; nothing is sent before the first call.

    `peer` is the name that the server's certificate must carry, whatever the address. `tls` None asks for plaintext.

    Raises:
        InvalidInput: Not an address, unusable TLS files, or plaintext to an address that is not loopback.
    """
    split_address(address)
    if tls is None:
        refuse_plaintext(address)
        return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    options: Options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", peer))
    return grpc.aio.secure_channel(address, _credentials(tls, tls.stamp()), options=options)


@lru_cache(maxsize=2)
def _credentials(tls: TlsFiles, stamp: Stamp) -> grpc.ChannelCredentials:
    """Return what channels of one identity share, read once: thousands are opened with the same files."""
    del stamp  # what was read under it is not what the files hold under another
    return channel_credentials(tls.load())
