"""A lane: one site in namespaces of its own, which plays the rows that come on its standard input, one a line.

Started by tests.faults.lanes; it answers each row with one line of JSON. A site that a row has left dirty is taken down
and made anew. When its input ends, so does everything.
"""

import asyncio
import contextlib
import os
import queue
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.faults.expected import Ending
from tests.faults.fault_site import BROKER, HOSTS, NAMES, FaultSite
from tests.faults.judgement import judge
from tests.faults.network import Loopback, Namespaces
from tests.faults.observation import Observation
from tests.faults.play import play
from tests.faults.rows import PAIRED, parse
from tests.faults.state_messages import StateMessages

BUDGET = "512MiB"
NO_CABLES = "--no-cables"
_TAIL = 40
"""Lines of each log."""
_ROW_SECONDS = 300.0
_TRIES = 3
"""A boundary that was gone before anybody could hold it is no fault: the row is played again."""


class Lane:
    """A site, made when it is first needed and kept while it is clean."""

    def __init__(self, *, cables: bool) -> None:
        self._cables = cables
        self._stack = contextlib.ExitStack()
        self._site: FaultSite | None = None
        self._states: StateMessages | None = None
        self._rows = 0

    def play(self, text: str) -> Observation:
        """Play a row; what goes wrong with the harness itself is told as such."""
        seen = Observation(row=text, broken="It was never played")
        try:
            site, states = self._ready_site()
            for _ in range(_TRIES):
                seen = asyncio.run(self._bounded(site, states, text))
                if not seen.missed:
                    break
                site, states = self._ready_site()
        except Exception:  # noqa: BLE001 - the lane goes on with the next row, on another site
            seen = Observation(row=text, broken=traceback.format_exc(limit=-6))
        complaints = judge(seen)
        if complaints and self._site is not None:
            seen = msgspec.structs.replace(seen, logs=_tails(self._site))
        if seen.broken or seen.remains or complaints or seen.ending == Ending.BROKEN:
            self.close()
        return seen

    def close(self) -> None:
        """Take the site down."""
        self._site = None
        self._stack.close()

    async def _bounded(self, site: FaultSite, states: StateMessages, text: str) -> Observation:
        self._rows += 1
        row = parse(text)
        async with asyncio.timeout(_ROW_SECONDS):
            if row.victim in PAIRED:
                await asyncio.to_thread(site.have_pair)
            return await play(site, states, row, f"m{self._rows}")

    def _ready_site(self) -> tuple[FaultSite, StateMessages]:
        if self._site is None or self._states is None:
            folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="s-")))
            network = Namespaces(NAMES) if self._cables else Loopback()
            site = self._stack.enter_context(
                contextlib.closing(FaultSite(folder, dict.fromkeys(HOSTS, BUDGET), network=network))
            )
            site.start_all()
            self._states = self._stack.enter_context(
                contextlib.closing(StateMessages(site.inside(BROKER), site.broker_address))
            )
            self._site = site
        self._site.start_all()
        return self._site, self._states


def _tails(site: FaultSite) -> dict[str, str]:
    logs = [*site.folder.glob("*.log"), *site.folder.glob("*/run/machines/*/*.log")]
    found = {}
    for path in sorted(logs):
        lines = path.read_text(errors="replace").splitlines()
        found[str(path.relative_to(site.folder))] = "\n".join(lines[-_TAIL:])
    return found


class _Asked:
    """Reads rows ahead, so that an end of the input is noticed while a row is played: whoever asked is gone then."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._rows: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.playing = False
        threading.Thread(target=self._read, name="rows", daemon=True).start()

    def __iter__(self) -> Iterator[str]:
        while (row := self._rows.get()) is not None:
            self.playing = True
            yield row
            self.playing = False

    def _read(self) -> None:
        for line in self._lines:
            self._rows.put(line.strip())
        if self.playing:
            os._exit(1)  # the first process of this namespace ends then, and with it everything
        self._rows.put(None)


def main() -> None:
    """Serve rows until the input ends."""
    lane = Lane(cables=NO_CABLES not in sys.argv[1:])
    try:
        for text in _Asked(sys.stdin):
            sys.stdout.write(msgspec.json.encode(lane.play(text)).decode() + "\n")
            sys.stdout.flush()
    finally:
        lane.close()


if __name__ == "__main__":
    main()
