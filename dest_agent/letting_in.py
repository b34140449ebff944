"""Whose bulk stream is let in, whatever it travels over: a host of the site that is the attempt's source, once each.

The certificate answers who somebody is, the ticket that he may send the pages of this one attempt.
"""

from typing import Protocol

from dest_agent.answering import Arrival
from dest_agent.direct_stream import DirectArrival


class Arriving(Arrival, DirectArrival, Protocol):
    """An arrival that knows who may send to it: dest_agent.incoming_attempt.IncomingAttempt."""

    def require_source(self, name: str | None) -> None:
        """Check who speaks for the source; None is a plaintext peer, which has no name."""

    def admit(self, ticket: bytes, stream: int) -> None:
        """Let a stream in: the ticket must be this attempt's, and each ordinal comes once."""


class Arrivals(Protocol):
    """Knows what is arriving: dest_agent.agent.DestAgent."""

    def bulk_target(self, attempt: str) -> Arriving:
        """Return the arrival that a bulk stream names."""


def let_in(arrivals: Arrivals, attempt: str, name: str | None, ticket: bytes, stream: int) -> Arriving:
    """Return the arrival of a stream that may send to it.

    Raises:
        Refused: It is not arriving here.
        Unauthorised: The peer is not its source, the ticket not its own, or the ordinal was used.
    """
    arriving = arrivals.bulk_target(attempt)
    arriving.require_source(name)
    arriving.admit(ticket, stream)
    return arriving
