"""What the engines refuse; any of these ends the attempt before the point of no return.

::

    TransferError
    +-- WrongAttempt         a frame of another attempt, round, stream, or out of sequence
    |   +-- WrongRound
    |   +-- WrongStream
    |   +-- OutOfSequence
    +-- WrongOrder           the call does not fit the state of the rounds (actual, required)
    +-- PageOutsideRound     a page that the open round did not announce, or that came twice
    +-- RoundIncomplete      all barriers are in, and announced pages are missing
    +-- BadContents          compressed page data that no pages come out of
    +-- WrongBase            a delta against something else than what lies here

A refused frame has changed nothing: neither RAM, nor what is stale, nor the expected sequence.
"""


class TransferError(Exception):
    """The root; raised only through its kinds."""


class WrongAttempt(TransferError):
    """The frame belongs to another attempt."""


class WrongRound(WrongAttempt):
    """The frame belongs to a round that is not the open one."""


class WrongStream(WrongAttempt):
    """The frame names a stream other than the one it came on, or one whose barrier is closed."""


class OutOfSequence(WrongAttempt):
    """A frame of this stream is missing, repeated or late."""


class WrongOrder(TransferError):
    """The call needs another state of the rounds."""

    def __init__(self, what: str, actual: str, required: str) -> None:
        super().__init__(f"{what} needs {required}; the state is {actual}")
        self.actual = actual
        self.required = required


class PageOutsideRound(TransferError):
    """The frame carries a page that the open round does not expect."""


class RoundIncomplete(TransferError):
    """The round's barriers are closed while announced pages have not come."""


class BadContents(TransferError):
    """Page data are damaged: they do not come to the pages that the frame names, or not to their digests."""


class WrongBase(TransferError):
    """A page's delta names another round than the one in which the page came last."""
