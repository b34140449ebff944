"""What changed, for those who wait for it: each hears of its own subjects, and many who wait keep nobody."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Collection
from typing import Final

_REMEMBERED: Final = 4096
"""Subjects whose last change is known; who waits for an older one looks anyway, after its time."""


class News:
    """Changes, numbered."""

    def __init__(self) -> None:
        self._count = 0
        self._last: OrderedDict[str, int] = OrderedDict()
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._of_all: set[asyncio.Future[None]] = set()

    @property
    def count(self) -> int:
        """Grows with each change."""
        return self._count

    def tell(self, subject: str) -> None:
        """Note that a subject changed, and wake whoever waits for that."""
        self._count += 1
        self._last[subject] = self._count
        self._last.move_to_end(subject)
        while len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        for waiting in (*self._waiting.get(subject, ()), *self._of_all):
            if not waiting.done():
                waiting.set_result(None)

    async def of(self, subjects: Collection[str] | None, seen: int, seconds: float) -> None:
        """Return when one of some subjects, or any, changed since so many changes were seen, or in so many seconds."""
        if self._is_news(subjects, seen):
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        places = [self._of_all] if subjects is None else [self._waiting.setdefault(one, set()) for one in subjects]
        for place in places:
            place.add(waiting)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiting
        finally:
            for place in places:
                place.discard(waiting)
            for subject in subjects or ():
                if not self._waiting.get(subject, True):
                    del self._waiting[subject]

    def _is_news(self, subjects: Collection[str] | None, seen: int) -> bool:
        if subjects is None:
            return self._count != seen
        return any(self._last.get(one, 0) > seen for one in subjects)
