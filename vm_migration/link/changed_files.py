"""When what has changed is taken in, and when again where it could not be. Pure: of what is found, and when.

::

    found is what was taken in last    -> nothing to do
    found is something else            -> due at once
    the same, and it could not be      -> due after `AGAIN` seconds: where no descriptor was free, nothing changes later
"""

from typing import Final, Generic, TypeVar

AGAIN: Final = 5.0
NOT_RENEWED: Final = "certificate not renewed: the one before is shown"
"""What the log says, once, where it is TLS files that could not be."""

_Found = TypeVar("_Found")


class Followed(Generic[_Found]):
    """What was taken in last of something that changes; times are seconds of one clock."""

    def __init__(self, taken: _Found) -> None:
        self._taken: _Found = taken
        self._failed: tuple[_Found, float] | None = None

    def due(self, found: _Found, now: float) -> bool:
        """Return whether what is found now is to be taken in."""
        if found == self._taken:
            return False
        return self._failed is None or self._failed[0] != found or now >= self._failed[1] + AGAIN

    def took(self, found: _Found) -> None:
        """Note that it was."""
        self._taken, self._failed = found, None

    def failed(self, found: _Found, now: float) -> bool:
        """Note that it could not be; return whether that is news, and not the same once more."""
        news = self._failed is None or self._failed[0] != found
        self._failed = (found, now)
        return news
