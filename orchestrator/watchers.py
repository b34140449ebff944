"""How many streams of changes somebody may have open: each looks at the store with every change of any attempt."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Final

import grpc.aio

from vm_migration.errors import Refused
from vm_migration.link.identity import Identity, peer_identity

MOST: Final = 64


class Watchers:
    """The open streams of each identity; those on plaintext cannot be told from each other."""

    def __init__(self) -> None:
        self._open: Counter[Identity | None] = Counter()

    @contextlib.contextmanager
    def place(self, who: Identity | None) -> Iterator[None]:
        """Count a stream while the context is entered.

        Raises:
            Refused: That identity has too many: `too-many-watches`.
        """
        if self._open[who] >= MOST:
            name = "A peer on plaintext" if who is None else who.uri
            hint = "End some of them, or ask now and then: viaduct list"
            raise Refused("too-many-watches", f"{name} watches {MOST} attempts and evacuations already", hint)
        self._open[who] += 1
        try:
            yield
        finally:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]


def watcher_of(context: object) -> Identity | None:
    """Return who makes a call."""
    return peer_identity(context) if isinstance(context, grpc.aio.ServicerContext) else None
