"""`viaduct watch`: an attempt to its end, or the whole site for as long as somebody looks."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

import click
from rich.console import Console
from rich.live import Live

from orchestrator.attempt import Attempt
from orchestrator.commands.evacuate import watched_evacuation
from orchestrator.commands.migrate import result_answer
from orchestrator.commands.update import update_answer
from orchestrator.desk import follow
from orchestrator.evacuation.plan import is_evacuation
from orchestrator.evacuation.view import EvacuationView
from orchestrator.hearing import hear
from orchestrator.host_standing import HostStanding, standing
from orchestrator.render.progress import LiveProgress
from orchestrator.render.site import SiteLines, SitePicture
from orchestrator.site import agents_of, open_desk
from orchestrator.site_view import SiteView, site_document
from orchestrator.site_watch import SiteWatch
from vm_migration.command_line.invocation import Answer, Invocation, answering, print_line

_ENDED_SHOWN: Final = 20
_OVER_SHOWN: Final = 2


@click.command("watch")
@click.argument("attempt", required=False)
@answering
async def watch(call: Invocation, attempt: str | None) -> Answer | None:
    """Watch ATTEMPT, or an evacuation, to its end, and exit as it does; without one the whole site, until Ctrl-C."""
    if attempt is None:
        await _watch_site(call)
        return None
    if is_evacuation(attempt):
        return await watched_evacuation(call, attempt)
    async with open_desk(call.configuration()) as desk:
        found = await desk.attempt(attempt)
        with LiveProgress(call.err, lines=True) as progress:
            last = await follow(desk.watch(found), progress.update)
    ended = last or found
    return update_answer(ended) if ended.asked.update else result_answer(ended)


async def _watch_site(call: Invocation) -> None:
    configuration = call.configuration()
    async with contextlib.AsyncExitStack() as stack:
        desk = await stack.enter_async_context(open_desk(configuration))
        agents = await stack.enter_async_context(agents_of(configuration))

        async def ask(host: str) -> HostStanding:
            return standing(host, await hear(agents, host))

        site = SiteWatch(desk, sorted(agents.hosts), ask, time.time)
        views = await stack.enter_async_context(contextlib.aclosing(site.views()))
        with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C is how it ends
            await _tell(call, views)


async def _tell(call: Invocation, views: AsyncIterator[SiteView]) -> None:
    if call.json:
        async for view in views:
            try:
                print_line(site_document(view))
            except BrokenPipeError:
                call.out.on_broken_pipe()  # whoever read has gone, as `head` does: ends as printing lines would
    elif call.out.is_terminal and not call.out.is_dumb_terminal:
        await _draw(call.out, views)
    else:
        lines = SiteLines()
        async for view in views:
            for line in lines.next(view, time.monotonic()):
                call.out.print(line, soft_wrap=True, markup=False)


async def _draw(console: Console, views: AsyncIterator[SiteView]) -> None:
    ended: deque[Attempt] = deque(maxlen=_ENDED_SHOWN)
    over: deque[EvacuationView] = deque(maxlen=_OVER_SHOWN)
    with Live(console=console, auto_refresh=False) as live:
        async for view in views:
            ended.extendleft(view.ended)
            over.extendleft(one for one in view.evacuations if one.ended)
            still = (one for one in view.evacuations if not one.ended)
            live.update(SitePicture(replace(view, evacuations=(*still, *over)), tuple(ended)), refresh=True)
