"""In which order the connections of one attempt are opened, and what each is for: pure, the same at both hosts.

The one that the process opens first is the main one. None is opened at the destination before the one before it is
connected there: see the package.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto

from vm_migration.errors import Unauthorised


class StreamRole(Enum):
    """What a connection is for."""

    MAIN = auto()
    CHANNEL = auto()


def role_of(ordinal: int) -> StreamRole:
    """Return what the connection is for that a process opens as its so-many-eth, from 0."""
    return StreamRole.CHANNEL if ordinal else StreamRole.MAIN


@dataclass(frozen=True, slots=True)
class OpeningOrder:
    """How many connections of an attempt have been asked for and connected, of `most` that there may be."""

    most: int
    asked: int = 0
    connected: int = 0

    def asking(self, ordinal: int, role: StreamRole) -> "OpeningOrder":
        """Take the wish to open a connection.

        Raises:
            Unauthorised: It was opened before, is not the attempt's, or it is not its turn.
        """
        if not self.asked <= ordinal < self.most:
            raise Unauthorised("stream-taken", f"Connection {ordinal} was opened before, or is not of this attempt")
        if ordinal != self.connected or self.asked != self.connected or role is not role_of(ordinal):
            text = f"Connection {ordinal} ({role.name.lower()}) comes before its turn: {self.connected} are connected"
            raise Unauthorised("stream-out-of-order", text, "Begin a new attempt")
        return replace(self, asked=ordinal + 1)

    def connecting(self) -> "OpeningOrder":
        """Note that the connection that was asked for last is there."""
        return replace(self, connected=self.asked)


def connections(channels: int) -> int:
    """Return how many connections a process opens that was told to use so many channels: 1 is the main one alone."""
    return 1 if channels == 1 else 1 + channels
