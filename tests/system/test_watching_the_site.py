"""`viaduct watch` over real hosts: as lines of JSON, and drawn on a terminal."""

import asyncio
import json
import signal

import jsonschema
import msgspec

from orchestrator.agents import Agents
from orchestrator.documents.schemas import schema_text
from tests.system.attempts import endless, machine, specification, started, works
from tests.system.command import DEADLINE, running
from tests.system.site import Site
from tests.system.terminal import drawn


async def test_a_migration_is_seen_from_its_rounds_to_its_end(site: Site, agents: Agents) -> None:
    schema = json.loads(schema_text("viaduct.site.v1"))
    async with machine(site, agents, specification("watched")) as created:
        await works(site, "host-a", created.machine)
        attempt = await started(agents, created.machine, "host-a", "host-b", endless())
        async with running(site, "watch", "--json") as command, asyncio.timeout(DEADLINE):
            assert command.stdout is not None
            cancelled = False
            async for line in command.stdout:
                document = json.loads(line)
                jsonschema.validate(document, schema)
                moving = [one for one in document["in_flight"] if one["attempt"] == attempt.key.attempt]
                counts = {one["host"]: (one["attempts_out"], one["attempts_in"]) for one in document["hosts"]}
                # Neither is told until it has answered.
                both = (counts.get("host-a"), counts.get("host-b")) == (
                    (1, 0),
                    (0, 1),
                )
                if not cancelled and both and moving and moving[0]["wire_bytes_per_s"]:
                    assert (moving[0]["phase"], moving[0]["downtime_limit_ms"]) == ("pre-copy", 100)
                    await agents.cancel("host-a", attempt.key)
                    cancelled = True
                if document["ended"]:
                    assert [one["outcome"] for one in document["ended"]] == ["cancelled"]
                    break
            command.send_signal(signal.SIGINT)
            out, err = await command.communicate()
        assert (command.returncode, err) == (0, b""), out


class Obstacle(msgspec.Struct):
    code: str


class Host(msgspec.Struct):
    host: str
    obstacles: list[Obstacle]


class View(msgspec.Struct):
    """A line of what is watched, as far as it matters here."""

    hosts: list[Host]
    unheard: str

    def obstacles(self, host: str) -> list[str] | None:
        """Return what is told against a host; None where it is not told yet."""
        found = (one.obstacles for one in self.hosts if one.host == host)
        return next(([each.code for each in obstacles] for obstacles in found), None)


async def seen(command: asyncio.subprocess.Process) -> View:
    assert command.stdout is not None
    return msgspec.json.decode(await command.stdout.readline(), type=View)


async def test_a_frozen_host_is_named_and_what_else_is_known_is_shown_without_it(site: Site, agents: Agents) -> None:
    frozen = [daemon.process for daemon in (site.source("host-b"), site.dest("host-b")) if daemon.process is not None]
    async with machine(site, agents, specification("beside")) as created:
        await works(site, "host-a", created.machine)
        for process in frozen:
            process.send_signal(signal.SIGSTOP)
        try:
            async with running(site, "watch", "--json") as command, asyncio.timeout(DEADLINE):
                first = found = await seen(command)
                while found.obstacles("host-a") != []:
                    found = await seen(command)
        finally:
            for process in frozen:
                process.send_signal(signal.SIGCONT)
    assert found.obstacles("host-b") in (["not-answered-yet"], ["unreachable"])  # once its call has ended
    assert first.unheard == "not every host has told of its attempts yet"


async def test_a_terminal_is_drawn_on_and_left_as_it_was(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("drawn")) as created:
        await works(site, "host-a", created.machine)
        attempt = await started(agents, created.machine, "host-a", "host-b", endless())
        text, exit_code = await asyncio.to_thread(drawn, site, ["drawn", "pre-copy", "3 hosts, 1 in flight"])
        assert exit_code == 0, text
        assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0, "the cursor was taken, and is back"
        await agents.cancel("host-a", attempt.key)
