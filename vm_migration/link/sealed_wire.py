"""A connection whose bytes go as sealed records below TLS, once TLS has said who is there and carried the secret.

A message is a record, or two where it is long: what comes before its last part, and that part, which is sealed from
where it lies and opened to where it belongs. Reading and writing have nothing in common, so that a thread does each.
"""

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from vm_migration.link.direct_wire import Buffer, DirectWire
from vm_migration.link.sealing import LENGTH_BYTES, TAG_BYTES, Direction, Opener, Sealer, sealed_length

LONGEST: Final = (1 << 20) + (1 << 12)
"""Bytes of message in one record of the source's."""
LONGEST_ANSWER: Final = (1 << 16) + 3
"""Bytes of message in one record of the destination's: the longest refusal (vm_migration.link.direct_answer).

A TLS record, as comes where the destination does not accept the source's certificate, says a length that is longer.
"""
_OWN_RECORD: Final = 1 << 14
"""Bytes from which on a message's last part has a record of its own: shorter ones are copied beside the rest."""


class SealedWire:
    """Reads and writes whole messages, as DirectWire does; everything of it raises OSError in the end."""

    def __init__(self, bare: DirectWire, secret: bytes, *, is_source: bool) -> None:
        """Go on below a connection's TLS with a secret that both ends know, of this connection alone."""
        out, back = Direction.TO_DESTINATION, Direction.TO_SOURCE
        written, self._longest = (LONGEST, LONGEST_ANSWER) if is_source else (LONGEST_ANSWER, LONGEST)
        self._bare: Final = bare
        self._sealer: Final = Sealer(secret, out if is_source else back)
        self._opener: Final = Opener(secret, back if is_source else out)
        self._writing: Final = threading.Lock()
        """No two that write have a nonce in common, or a place in between, whoever may call."""
        self._sealed: Final = memoryview(bytearray(2 * (LENGTH_BYTES + TAG_BYTES) + 2 * written))
        self._came: Final = memoryview(bytearray(self._longest + TAG_BYTES))
        self._open: Final = memoryview(bytearray(self._longest))
        self._left = self._open[:0]
        """What was opened and not read yet."""
        self._length: Final = memoryview(bytearray(LENGTH_BYTES))

    def write(self, parts: Sequence[Buffer], deadline: float | None = None) -> None:
        """Write a message that is given in parts."""
        long = len(parts) > 1 and len(parts[-1]) >= _OWN_RECORD
        first = parts[:-1] if long else parts
        with self._writing:
            records = [self._sealer.seal(first[0] if len(first) == 1 else b"".join(first), self._sealed)]
            if long:
                records.append(self._sealer.seal(parts[-1], self._sealed[len(records[0]) :]))
            self._bare.write(records, deadline)

    def read_exactly(self, into: memoryview, deadline: float | None = None) -> bool:
        """Fill a buffer; False where the peer had closed the connection before the first byte.

        Raises:
            OSError: Closed in the middle, silent at the deadline, broken, or not sealed.
        """
        got = 0
        while got < len(into):
            if not self._left and not self._next(deadline):
                if got:
                    raise ConnectionResetError("Closed in the middle of a message")
                return False
            got += self._take(into[got:])
        return True

    def fill(self, places: Sequence[memoryview]) -> None:
        """Fill buffers, one behind the other; one that is a record by itself is opened into it.

        Raises:
            OSError: The connection broke, was closed before all were full, or is not sealed.
        """
        left = deque(place for place in places if len(place))
        while left:
            place = left.popleft()
            if not self._left and not left:
                self._fill_from_record(place)
            elif not self.read_exactly(place):
                raise ConnectionResetError("Closed in the middle of a message")

    def drain(self, deadline: float) -> None:
        """Say that nothing more is written, and read what still comes until the peer closes too, or the deadline."""
        self._bare.drain(deadline)

    def shut(self) -> None:
        """End the connection; threads that read or write come back with an error or an end at once."""
        self._bare.shut()

    def close(self) -> None:
        """Free the socket; no thread may use it any more."""
        self._bare.close()

    def _fill_from_record(self, place: memoryview) -> None:
        count = self._receive(None)
        if count is None:
            raise ConnectionResetError("Closed in the middle of a message")
        if count == len(place):
            self._opener.open(self._length, self._came[: count + TAG_BYTES], place)
            return
        self._open_record(count)
        if not self.read_exactly(place):
            raise ConnectionResetError("Closed in the middle of a message")

    def _next(self, deadline: float | None) -> bool:
        count = self._receive(deadline)
        if count is None:
            return False
        self._open_record(count)
        return True

    def _receive(self, deadline: float | None) -> int | None:
        """Wait for a record and return how long its message is; None where the peer closed before it."""
        if not self._bare.read_exactly(self._length, deadline):
            return None
        count = sealed_length(self._length, self._longest)
        if not self._bare.read_exactly(self._came[: count + TAG_BYTES], deadline):
            raise ConnectionResetError("Closed in the middle of a message")
        return count

    def _open_record(self, count: int) -> None:
        self._opener.open(self._length, self._came[: count + TAG_BYTES], self._open[:count])
        self._left = self._open[:count]

    def _take(self, into: memoryview) -> int:
        count = min(len(into), len(self._left))
        into[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
