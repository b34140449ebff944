"""What a publisher has to tell: kept by whoever owns the truth, read again whenever needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from vm_migration.daemon.publication import Publication


@dataclass(frozen=True, slots=True)
class Entry:
    """A message under its number; numbers grow."""

    number: int
    publication: Publication


class Outbox(Protocol):
    """The journal's side of publishing. Calls may block: each is made from a thread.

    Raises:
        Refused: The journal cannot be used for a while; the call is made again.
    """

    def pending(self, limit: int) -> Sequence[Entry]:
        """Return what no broker has yet, oldest first, at most so many."""

    def acknowledge(self, number: int) -> None:
        """Note that a broker has everything up to this number."""

    def retained(self) -> Sequence[Publication]:
        """Return what shall stand under every retained topic, as it is true now."""


class _Nothing:
    """The outbox of a publisher that only says that it is there."""

    def pending(self, limit: int) -> Sequence[Entry]:
        """Return nothing."""
        return ()

    def acknowledge(self, number: int) -> None:
        """Take note of nothing."""

    def retained(self) -> Sequence[Publication]:
        """Return nothing."""
        return ()


NOTHING: Final[Outbox] = _Nothing()
