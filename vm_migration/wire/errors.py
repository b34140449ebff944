"""What cannot be read from the wire; any of these ends the attempt, for a peer that writes them is broken or hostile.

::

    WireError
    +-- FrameError             a message of a bulk stream
    |   +-- Truncated          shorter or longer than it says
    |   +-- UnknownVersion     a version that this program does not speak
    |   +-- UnknownKind        a kind, a flag or a RAM block that this version does not have
    |   +-- BadChecksum        the bytes are not those that were sent
    |   +-- NotCanonical       the meaning is clear, but this version writes it in other bytes
    +-- BitmapError            a bitmap that is cut off, out of bounds or not canonical
"""


class WireError(Exception):
    """The root; raised only through its kinds."""


class FrameError(WireError):
    """A message of a bulk stream cannot be read."""


class Truncated(FrameError):
    """The message's length is not what its header says."""


class UnknownVersion(FrameError):
    """The message is of another version."""


class UnknownKind(FrameError):
    """The message has a kind, flag or RAM block that this version does not have."""


class BadChecksum(FrameError):
    """The bytes are not those that were sent."""


class NotCanonical(FrameError):
    """This version writes the same meaning in other bytes."""


class BitmapError(WireError):
    """A bitmap cannot be read."""
