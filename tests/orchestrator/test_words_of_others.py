"""What hosts and machines say is printed as they say it, also where it looks like the console's own markup."""

import asyncio
import io
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from orchestrator.attempt import Fault, Notice, Outcome
from orchestrator.commands.migrate import interrupts
from orchestrator.documents.listings import (
    DirtyRateDocument,
    EventDocument,
    HostDocument,
    MachineDocument,
    SideDocument,
    SilentHostDocument,
)
from orchestrator.documents.migration import FaultDocument, NoticeDocument
from orchestrator.evacuation.plan import Evacuation, Kind, Move
from orchestrator.evacuation.view import view_of
from orchestrator.render.evacuation import picture, show_evacuation
from orchestrator.render.hosts import show_host, show_hosts
from orchestrator.render.listings import show_attempts, show_dirty_rate, show_events, show_machine, show_machines
from orchestrator.render.notices import show_notices
from orchestrator.render.site import site_picture
from orchestrator.render.updates import show_updates
from orchestrator.site_view import SiteView
from orchestrator.updating.fleet import FleetResult
from tests.orchestrator.test_queueing import waiting
from vm_migration.command_line.invocation import Invocation

WORDS = "Configure [tls], or [/] and [red] whatever"
FAULT = Fault("odd", WORDS, "")
FAILING = Move("m", "web", 1, "host-b", ("x",), outcome=Outcome.FAILED, error=FAULT, reason=WORDS)
LEAVING = view_of(Evacuation("ev-1", Kind.EVACUATE, "host-a", (FAILING,), 1.0, 2.0), {})
WAITING = replace(waiting(2, "host-a", "host-b"), reason=WORDS)
SITE = SiteView(1.0, attempts=(WAITING,))
SIDE = SideDocument("host-a:9550", False, None, None, None, None, (), None, None, None)
HOST = HostDocument("host-a", SIDE, SIDE, (NoticeDocument("odd", WORDS, ""),), None)
MACHINE = MachineDocument(
    "m", "web", "host-a", "OWNED", 1, "running", 1, None, None, None, (NoticeDocument("odd", WORDS, ""),)
)
SILENT = SilentHostDocument("host-b", FaultDocument("odd", WORDS, ""))
RATE = DirtyRateDocument("viaduct.dirty_rate.v1", "web", "host-a", 1000.0, 1, 0, 1, 4096.0, True, WORDS, False)
EVENT = EventDocument(1, "preflight", None, WORDS, "now")
FAILED = replace(waiting(1, "host-a", "host-a"), error=FAULT, outcome=Outcome.FAILED)


@pytest.mark.parametrize(
    "show",
    [
        lambda console: show_notices(console, (Notice("odd", WORDS),), ()),
        lambda console: show_notices(console, (), (Notice("odd", WORDS, "qat[0]"),)),
        lambda console: show_evacuation(console, LEAVING),
        lambda console: console.print(picture(LEAVING)),
        lambda console: show_updates(console, "host-a", FleetResult((FAILED,), ())),
        lambda console: show_host(console, HOST),
        lambda console: show_hosts(console, [HOST]),
        lambda console: show_machine(console, MACHINE),
        lambda console: show_machines(console, [], [SILENT]),
        lambda console: show_attempts(console, [], [SILENT]),
        lambda console: show_dirty_rate(console, RATE),
        lambda console: show_events(console, [EVENT]),
        lambda console: console.print(site_picture(SITE, (), 30)),
    ],
    ids=[
        *("blocker", "warning", "evacuation", "picture", "updates", "host", "hosts", "machine", "machines"),
        *("attempts", "dirty rate", "events", "site"),
    ],
)
def test_words_in_brackets_are_there_and_break_nothing(show: Callable[[Console], None]) -> None:
    console = Console(file=io.StringIO(), width=300)
    show(console)
    assert isinstance(console.file, io.StringIO)
    assert WORDS in console.file.getvalue()


async def test_what_is_said_at_an_interrupt_is_there_too() -> None:
    said = asyncio.Event()

    async def cancel() -> str:
        said.set()
        return f"Not cancelled: {WORDS}"

    call = Invocation(err=Console(file=io.StringIO(), width=300))
    with interrupts(call, cancel):
        signal.raise_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            await said.wait()  # it is printed in the step in which this is set
    assert isinstance(call.err.file, io.StringIO)
    assert f"Not cancelled: {WORDS}" in call.err.file.getvalue()
