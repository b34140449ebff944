"""Channels that a daemon keeps: each peer's is opened anew when the TLS files are others than it was opened with.

Calls under way go on over the channel of before, which is closed at the renewal after that one: a peer has two at most.
Where the files cannot be used, the channel of before is kept, and they are tried again.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc.aio

from vm_migration.errors import InvalidInput
from vm_migration.link.changed_files import NOT_RENEWED, Followed
from vm_migration.link.channel import OpenChannel, open_channel
from vm_migration.link.tls import Stamp, TlsFiles
from vm_migration.telemetry import logs

_log: Final = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    channel: grpc.aio.Channel
    files: Followed[Stamp]
    before: grpc.aio.Channel | None = None


class RenewedChannels:
    """Channels by peer; `close` must be awaited."""

    def __init__(
        self,
        tls: TlsFiles | None,
        opened: OpenChannel = open_channel,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open nothing yet. `tls` None speaks plaintext, to loopback only; `opened` opens a channel."""
        self._tls: Final = tls
        self._open: Final = opened
        self._clock: Final = clock
        self._kept: Final[dict[tuple[str, str], _Kept]] = {}
        self._closing: Final[set[asyncio.Task[None]]] = set()

    def to(self, address: str, peer: str) -> grpc.aio.Channel:
        """Return the channel to a peer's address for the next call; what is returned is not to be kept.

        Raises:
            InvalidInput: Bad address, or TLS files that are unusable and were never usable for this peer.
        """
        kept, stamp, now = self._kept.get((address, peer)), self._stamp(), self._clock()
        if kept is not None and not kept.files.due(stamp, now):
            return kept.channel
        try:
            fresh = self._open(address, self._tls, peer)
        except InvalidInput as error:
            if kept is None:
                raise
            if kept.files.failed(stamp, now):
                _log.warning(NOT_RENEWED, code=error.code, reason=error.message)
            return kept.channel
        self._kept[address, peer] = _Kept(fresh, Followed(stamp), None if kept is None else kept.channel)
        if kept is not None and kept.before is not None:
            self._close_soon(kept.before)
        return fresh

    async def close(self) -> None:
        """End every channel, and the calls on it."""
        for kept in self._kept.values():
            self._close_soon(kept.channel)
            if kept.before is not None:
                self._close_soon(kept.before)
        self._kept.clear()
        await asyncio.gather(*self._closing)

    def _close_soon(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.create_task(channel.close(None), name="close a channel")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _stamp(self) -> Stamp:
        if self._tls is None:
            return ()
        try:
            return self._tls.stamp()
        except InvalidInput:  # a file is missing: opening says which
            return ()
