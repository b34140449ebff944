"""What `viaduct watch` shows of the whole site: on any screen, and as lines of what changed."""

import asyncio
import io
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from orchestrator.attempt import Attempt, Notice, Outcome, Phase
from orchestrator.documents.schemas import schema_text
from orchestrator.evacuation.plan import Evacuation, Kind, Move
from orchestrator.evacuation.view import EvacuationView, view_of
from orchestrator.host_standing import HostStanding
from orchestrator.learning import NOT_ANSWERED_YET, Listing
from orchestrator.render.site import SiteLines, SitePicture
from orchestrator.site_view import SiteView, site_document
from orchestrator.site_watch import MOST_ASKED, MOST_FOLLOWED, AskHost, Pace, SiteWatch
from tests.orchestrator.attempts_to_draw import completed, copying, waiting
from vm_migration.errors import InvalidInput, MigrationError, Unreachable

SILENT = HostStanding("host-z", (Notice("unreachable", "host-z (dest agent at 10.0.0.9:7002) did not answer"),))
NOT_YET = (Notice(NOT_ANSWERED_YET, "host-a has not answered yet"),)


MOVING, DONE, WAITING = copying(), completed(), waiting()


def named(base: Attempt, number: int) -> Attempt:
    return replace(base, attempt=f"attempt-{number}", name=f"guest-{number}")


def queued(number: int, priority: int = 0) -> Attempt:
    return replace(named(WAITING, number), phase=Phase.QUEUED, report=None, priority=priority, reason="its turn")


def host(number: int) -> HostStanding:
    return HostStanding(f"host-{number}", (), "0.2.0", frozenset(), 1 << 36, 1 << 35, 12, number % 3, number % 2)


def leaving(number: int, outcome: Outcome | None = None) -> EvacuationView:
    moves = (Move("one", "one", 1, attempts=("a-1",), outcome=outcome), Move("two", "two", 1, outcome=outcome))
    ended = outcome is not None
    plan = Evacuation(f"ev-{number}", Kind.EVACUATE, f"host-{number}", moves, 1.0, 1.0, ended=ended)
    return view_of(plan, {})


def drawn(view: SiteView, *, width: int = 100, height: int = 30, ended: Sequence[Attempt] = ()) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, height=height, force_terminal=True, no_color=True, legacy_windows=False)
    console.print(SitePicture(view, ended))
    return Text.from_ansi(file.getvalue()).plain


def test_a_screen_has_hosts_what_moves_what_waits_and_what_ended() -> None:
    view = SiteView(1.0, (host(1), SILENT), (named(MOVING, 1), queued(2)))
    text = drawn(view, ended=(named(DONE, 3),))
    for words in ("2 hosts, 1 in flight, 1 waiting", "guest-1", "pre-copy", "142 ms", "guest-2", "its turn", "guest-3"):
        assert words in text, words
    assert text.index("host-z") < text.index("host-1"), "who is silent comes first"
    assert "did not answer" in text


def test_an_orchestrator_that_is_silent_is_told_beside_what_was_known() -> None:
    text = drawn(SiteView(1.0, (), (named(MOVING, 1),), unheard="not told: orchestrator at 10.0.0.9:7000"))
    assert "not told: orchestrator" in text
    assert "guest-1" in text


sites = st.builds(
    lambda moving, waits, hosts, leave: SiteView(
        1.0,
        tuple(host(n) for n in range(hosts)),
        (*(named(MOVING, n) for n in range(moving)), *(queued(1000 + n) for n in range(waits))),
        evacuations=tuple(leaving(n) for n in range(leave)),
        maintenance=frozenset(f"host-{n}" for n in range(leave)),
    ),
    *(st.integers(0, 50) for _ in range(4)),
)
screens = st.tuples(st.integers(80, 200), st.integers(20, 60))


@given(sites, st.integers(0, 20), screens)
def test_a_site_of_any_size_fits_on_the_screen_and_hides_nothing_silently(
    view: SiteView, ended: int, screen: tuple[int, int]
) -> None:
    width, height = screen
    shown = drawn(view, width=width, height=height, ended=[named(DONE, 2000 + n) for n in range(ended)]).splitlines()
    assert len(shown) <= height
    assert max(len(line) for line in shown) <= width
    hidden = sum(int(line.split()[1]) for line in shown if line.startswith("and "))
    rows = sum(line.startswith(("guest-", "host-")) and "->" not in line for line in shown)
    rows += sum(line.startswith("Evacuation of") for line in shown)
    assert rows + hidden == len(view.hosts) + len(view.attempts) + len(view.evacuations)


def test_what_waits_is_in_the_order_of_its_turns() -> None:
    view = SiteView(1.0, (), (queued(1), queued(2, priority=5), queued(3)))
    assert [one.name for one in view.waiting] == ["guest-2", "guest-1", "guest-3"]


def test_lines_tell_what_changed_and_are_silent_otherwise() -> None:
    lines = SiteLines()
    first = SiteView(1.0, (host(1), SILENT), (named(MOVING, 1),))
    told = list(lines.next(first, 0.0))
    assert [line.split()[0] for line in told] == ["host-1", "host-z", "guest-1"]
    assert told[0] == "host-1 answers, 12 machines"
    assert list(lines.next(replace(first, at=2.0), 1.0)) == []
    assert len(list(lines.next(replace(first, at=8.0), 7.0))) == 1, "now and then, how far it is"
    back = replace(SILENT, obstacles=(), machines=1)
    after = SiteView(9.0, (host(1), back), (), (named(DONE, 1),))
    assert [line.partition(",")[0] for line in lines.next(after, 8.0)] == [
        "host-z answers",
        "guest-1 host-a -> host-b: completed",
    ]
    assert list(lines.next(replace(after, ended=(), unheard="not told: away"), 9.0)) == ["not told: away"]
    assert list(lines.next(replace(after, ended=()), 10.0)) == ["attempts are told"]


def test_a_line_of_json_is_what_its_schema_says() -> None:
    evacuations = (leaving(1), leaving(2, Outcome.COMPLETED))
    view = SiteView(
        1.0,
        (host(1), SILENT),
        (named(MOVING, 1), queued(2)),
        (named(DONE, 3),),
        "not told",
        evacuations,
        frozenset({"host-1"}),
    )
    document = json.loads(json.dumps(msgspec.to_builtins(site_document(view))))
    jsonschema.validate(document, json.loads(schema_text("viaduct.site.v1")))
    assert [one["name"] for one in document["in_flight"] + document["waiting"]] == ["guest-1", "guest-2"]
    assert (document["ended"][0]["outcome"], document["unheard"]) == ("completed", "not told")
    assert [(one["host"], one["outcome"]) for one in document["evacuations"]] == [
        ("host-1", None),
        ("host-2", "completed"),
    ]
    assert [one["maintenance"] for one in document["hosts"]] == [True, False]


def test_an_evacuation_is_a_line_that_is_told_anew_when_it_has_changed() -> None:
    lines, first = SiteLines(), SiteView(1.0, (), evacuations=(leaving(1),), maintenance=frozenset({"host-1"}))
    assert list(lines.next(first, 0.0)) == [
        "host-1 is in maintenance",
        "Evacuation of host-1: 0 of 2 moved, 1 moving, 1 waiting",
    ]
    assert list(lines.next(first, 1.0)) == []
    over = replace(first, evacuations=(leaving(1, Outcome.COMPLETED),))
    assert list(lines.next(over, 2.0)) == ["Evacuation of host-1: completed; 2 of 2 moved"]
    assert list(lines.next(SiteView(2.0), 3.0)) == ["host-1 is in maintenance no more"]
    text = drawn(
        replace(first, hosts=(host(1), replace(SILENT, host="host-2")), maintenance=frozenset({"host-1", "host-2"}))
    )
    assert text.count("in maintenance") == 2
    assert "Evacuation of host-1: 0 of 2 moved" in text


class FakeEvacuations:
    """What is open, as the test says, and what has ended."""

    def __init__(self) -> None:
        self.open: tuple[EvacuationView, ...] = ()
        self.over: dict[str, EvacuationView] = {}
        self.kept: frozenset[str] = frozenset()

    async def all(self, *, everything: bool) -> tuple[EvacuationView, ...]:
        assert not everything
        return self.open

    async def find(self, start: str) -> EvacuationView:
        if start not in self.over:
            raise InvalidInput("unknown-evacuation", "forgotten")
        return self.over[start]

    async def maintenance(self) -> frozenset[str]:
        return self.kept


class FakeDesk:
    """Answers, listing by listing, as it is told to; what is watched changes when the test says so."""

    def __init__(self, *listings: tuple[Attempt, ...] | MigrationError, ends: Sequence[Attempt] = ()) -> None:
        self.listings = list(listings)
        self.ends = {one.attempt: one for one in ends}
        self.changes: dict[str, asyncio.Queue[Attempt | MigrationError]] = {}
        self.evacuations = FakeEvacuations()
        self.of_hosts: tuple[Attempt, ...] = ()
        self.hosts_tell = asyncio.Event()
        self.hosts_tell.set()

    async def attempts(self, *, everything: bool, hosts: bool = True) -> Listing:
        assert not everything
        if hosts:
            await self.hosts_tell.wait()
        told = self.listings.pop(0) if hosts and len(self.listings) > 1 else self.listings[0]
        if hosts and self.of_hosts and not isinstance(told, MigrationError):
            return Listing((*told, *self.of_hosts), {})
        if isinstance(told, MigrationError):
            raise told
        return Listing(told, {})

    async def attempt(self, start: str) -> Attempt:
        if start not in self.ends:
            raise InvalidInput("unknown-attempt", "forgotten")
        return self.ends[start]

    async def watch(self, attempt: Attempt) -> AsyncGenerator[Attempt, None]:
        changes = self.changes.setdefault(attempt.attempt, asyncio.Queue())
        now: Attempt | MigrationError = attempt
        while not isinstance(now, MigrationError):
            yield now
            if now.ended:
                return
            now = await changes.get()
        raise now


async def nobody(host: str) -> HostStanding:
    raise AssertionError(host)


@asynccontextmanager
async def watching(
    desk: FakeDesk, hosts: Sequence[str] = (), ask: AskHost = nobody
) -> AsyncIterator[Callable[[Callable[[SiteView], bool]], Awaitable[list[SiteView]]]]:
    """Return what takes views up to one that is looked for."""
    async with aclosing(SiteWatch(desk, hosts, ask, lambda: 7.0, Pace(0.0, 0.0, 0.0)).views()) as views:

        async def until(wanted: Callable[[SiteView], bool]) -> list[SiteView]:
            found = []
            async with asyncio.timeout(20):
                async for view in views:
                    found.append(view)
                    if wanted(view):
                        return found
            raise AssertionError

        yield until


async def test_what_is_in_flight_is_followed_and_its_end_is_shown_once() -> None:
    moving, done = named(MOVING, 1), named(DONE, 1)
    desk = FakeDesk((moving,))
    async with watching(desk) as until:
        assert (await until(lambda view: bool(view.attempts)))[-1].attempts == (moving,)
        later = replace(moving, reason="later")
        desk.changes["attempt-1"].put_nowait(later)
        assert (await until(lambda view: view.attempts == (later,)))[-1].ended == ()
        desk.listings = [()]
        desk.changes["attempt-1"].put_nowait(done)
        assert (await until(lambda view: bool(view.ended)))[-1].ended == (done,)
        assert (await until(lambda _: True))[-1] == SiteView(7.0)


async def test_what_is_not_followed_is_asked_for_once_it_is_not_listed() -> None:
    done = replace(named(DONE, 2), outcome=Outcome.COMPLETED)
    desk = FakeDesk((queued(1), queued(2)), (queued(1),), (), ends=[done])
    async with watching(desk) as until:
        assert (await until(lambda view: bool(view.ended)))[-1].ended == (done,)
        after = (await until(lambda view: not view.attempts))[-1]
    assert after.ended == (), "nobody remembers the other one: it just goes"
    assert desk.changes == {}, "what waits for its turn is not followed"


async def test_a_follower_that_loses_its_orchestrator_is_followed_anew() -> None:
    moving = named(MOVING, 1)
    desk = FakeDesk((moving,))
    async with watching(desk) as until:
        await until(lambda _: "attempt-1" in desk.changes)
        desk.changes["attempt-1"].put_nowait(Unreachable("silent", "orchestrator was silent", ""))
        later = replace(moving, reason="later")
        desk.changes["attempt-1"].put_nowait(later)
        assert (await until(lambda view: view.attempts == (later,)))[-1].unheard == ""


async def test_an_orchestrator_that_goes_away_and_comes_back_is_waited_for() -> None:
    waits = queued(1)
    desk = FakeDesk((waits,), Unreachable("silent", "orchestrator was silent", ""))
    async with watching(desk) as until:
        during = (await until(lambda view: bool(view.unheard)))[-1]
        assert (during.attempts, "orchestrator was silent" in during.unheard) == ((waits,), True)
        desk.listings = [()]
        await until(lambda view: not view.unheard and not view.attempts)


async def test_no_more_are_followed_than_one_identity_may() -> None:
    desk = FakeDesk(tuple(named(MOVING, number) for number in range(3 * MOST_FOLLOWED)))
    async with watching(desk) as until:
        view = (await until(lambda view: bool(view.attempts)))[-1]
        assert len(view.attempts) == 3 * MOST_FOLLOWED
        await until(lambda _: bool(desk.changes))
    assert len(desk.changes) == MOST_FOLLOWED


async def test_nobody_at_the_first_look_is_an_error() -> None:
    desk = FakeDesk(Unreachable("silent", "orchestrator was silent", ""))
    with pytest.raises(Unreachable):
        async with watching(desk) as until:
            await until(lambda _: False)


async def test_a_host_that_never_answers_keeps_nothing_else_away() -> None:
    async def ask(name: str) -> HostStanding:
        if name == "host-a":
            await asyncio.Event().wait()
        return HostStanding(name)

    async with watching(FakeDesk((named(MOVING, 1),)), ("host-a", "host-b"), ask) as until:
        view = (await until(lambda view: bool(view.attempts and view.hosts)))[-1]
    assert [(one.host, one.obstacles) for one in view.hosts] == [("host-a", NOT_YET), ("host-b", ())]


async def test_what_the_store_holds_is_shown_before_a_silent_host_was_heard() -> None:
    desk = FakeDesk((named(MOVING, 1),))
    desk.hosts_tell.clear()
    async with watching(desk) as until:
        view = (await until(lambda view: bool(view.attempts)))[-1]
        assert view.unheard
        desk.hosts_tell.set()
        await until(lambda view: not view.unheard)


async def test_the_store_is_listed_again_while_a_host_is_silent_and_what_the_others_know_stays() -> None:
    waits, learned = queued(1), queued(2)
    desk = FakeDesk((waits,), ends=[replace(waits, phase=Phase.ABORTED, outcome=Outcome.CANCELLED)])
    desk.of_hosts = (learned,)
    async with watching(desk) as until:
        await until(lambda view: len(view.attempts) == 2 and not view.unheard)
        desk.hosts_tell.clear()
        desk.listings = [()]
        view = (await until(lambda view: bool(view.ended)))[-1]
        assert ([one.attempt for one in view.ended], view.attempts) == ([waits.attempt], (learned,))


async def test_an_evacuation_is_shown_until_it_has_ended_and_its_end_once() -> None:
    desk = FakeDesk(())
    told = desk.evacuations
    told.open, told.kept = (leaving(1), leaving(2)), frozenset({"host-1"})
    async with watching(desk) as until:
        view = (await until(lambda view: bool(view.maintenance)))[-1]
        assert view.evacuations == (leaving(1), leaving(2))
        told.open, told.over = (), {"ev-1": leaving(1, Outcome.COMPLETED)}
        assert (await until(lambda view: leaving(1) not in view.evacuations))[-1].evacuations == (
            leaving(1, Outcome.COMPLETED),
        ), "nobody remembers the other one: it just goes"
        assert (await until(lambda _: True))[-1].evacuations == ()


async def test_a_site_of_many_hosts_is_asked_some_at_a_time() -> None:
    asking, most, names = 0, 0, [f"host-{number}" for number in range(4 * MOST_ASKED)]

    async def ask(name: str) -> HostStanding:
        nonlocal asking, most
        asking += 1
        most = max(most, asking)
        await asyncio.sleep(0)
        asking -= 1
        return HostStanding(name)

    async with watching(FakeDesk(()), names, ask) as until:
        view = (await until(lambda view: len(view.hosts) == len(names)))[-1]
    assert [one.host for one in view.hosts] == names
    assert most == MOST_ASKED


async def test_a_configuration_that_is_wrong_ends_it() -> None:
    async def wrong(host: str) -> HostStanding:
        raise InvalidInput("bad-address", f"{host} has no port")

    with pytest.raises(InvalidInput):
        async with watching(FakeDesk(()), ("host-a",), wrong) as until:
            await until(lambda _: False)
