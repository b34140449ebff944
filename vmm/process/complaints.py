"""What the host refused a running machine, one JSON document a line on stderr, as the agents log.

A query that fails as RAM leaves an address space, or a mapping that the host does not take, ends nothing and has
nobody to be told to (semantics 1.6, 3.5): it is reported. How many lines there are is in the guest's hands, so there
is an end to them.
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, TextIO

LIMIT: Final = 256
"""Lines that one process writes in its life; the last says that there would be more."""


class Complaints:
    """Writes lines to a stream, of a machine's process that is not named any further: its file is the machine's."""

    def __init__(self, stream: TextIO, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._stream: Final = stream
        self._now: Final = now
        self._left = LIMIT

    def write(self, texts: Sequence[str]) -> None:
        """Write a line for each text, as far as the limit goes."""
        for text in texts[: self._left]:
            self._left -= 1
            self._line(text if self._left else "further failures are not told")

    def _line(self, text: str) -> None:
        line = {
            "time": self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "level": "warning",
            "process": "viaduct-vmm",
            "event": text,
        }
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()
