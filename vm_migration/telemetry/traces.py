"""Spans of an attempt, in every process that has a part in it, as one trace; off until `using` says otherwise.

::

    orchestrator    migration ------------------------------------------------------------
    source agent      Source/Begin   attempt --- pre-copy --- stopping --- handing-over --
    dest agent                Destination/Prepare      Finish      Handoff   NoteRetired

A call carries the span that it is made in (W3C Trace Context, in the call's metadata), and begins one where it enters.
A span that nobody's call is behind, as after a restart, begins anew in the same trace: a trace's identifier is the
attempt's UUID, so that whoever knows the one finds the other. vm_migration.daemon.traces says where they are sent.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Protocol

Subject = Mapping[str, str | int]
"""Machine, attempt and epoch, as the logs have them."""
Carried = tuple[tuple[str, str], ...]
"""Metadata of a call."""
_KEYS: Final = frozenset({"traceparent", "tracestate"})
"""https://www.w3.org/TR/trace-context/ has them."""


class Tracer(Protocol):
    """Makes spans and sends them away; nothing here waits for that, or fails with it."""

    def carried(self) -> Carried:
        """Return what a call that is made now carries."""

    def span(self, name: str, subject: Subject, carrier: Mapping[str, str]) -> AbstractContextManager[None]:
        """Have everything inside be one span, under the one that a carrier tells of, or the one around."""

    def begin(self, name: str, subject: Subject) -> Callable[[], None]:
        """Begin a span under the one around, and return what ends it."""


class _Using:
    tracer: Tracer | None = None


@contextmanager
def using(tracer: Tracer) -> Iterator[None]:
    """Have this process trace inside."""
    before, _Using.tracer = _Using.tracer, tracer
    try:
        yield
    finally:
        _Using.tracer = before


def carried() -> Carried | None:
    """Return the metadata of a call that is made now; None where there is nothing to carry."""
    return None if _Using.tracer is None else _Using.tracer.carried() or None


@contextmanager
def span(name: str, subject: Subject, metadata: Callable[[], Mapping[str, str | bytes]] = dict) -> Iterator[None]:
    """Have everything inside be one span of an attempt; what belongs to no attempt is none."""
    tracer = _Using.tracer
    if tracer is None or not subject.get("attempt"):
        yield
        return
    told = {key: value for key, value in metadata().items() if key in _KEYS and isinstance(value, str)}
    with tracer.span(name, subject, told):
        yield


async def spanned(name: str, subject: Subject, work: Awaitable[None]) -> None:
    """Do a task's work as one span."""
    with span(name, subject):
        await work


class Phases:
    """Spans that follow one another: each ends where the next begins."""

    def __init__(self) -> None:
        self._end: Callable[[], None] | None = None

    def enter(self, name: str, subject: Subject) -> None:
        """End the phase before, and begin one."""
        self.leave()
        if _Using.tracer is not None:
            self._end = _Using.tracer.begin(name, subject)

    def leave(self) -> None:
        """End the phase, where there is one."""
        if self._end is not None:
            self._end()
            self._end = None
