"""`viaduct watch` over real hosts: as lines of JSON, and drawn on a terminal."""

import asyncio
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import jsonschema

from orchestrator.agents import Agents
from orchestrator.documents.schemas import schema_text
from tests.system.attempts import endless, machine, specification, started, works
from tests.system.command import DEADLINE, running
from tests.system.daemons import environment, program
from tests.system.site import Site


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
                if not cancelled and moving and moving[0]["wire_bytes_per_s"]:
                    counts = {one["host"]: (one["attempts_out"], one["attempts_in"]) for one in document["hosts"]}
                    assert (counts["host-a"], counts["host-b"]) == ((1, 0), (0, 1))
                    assert (moving[0]["phase"], moving[0]["downtime_limit_ms"]) == ("pre-copy", 100)
                    await agents.cancel("host-a", attempt.key)
                    cancelled = True
                if document["ended"]:
                    assert [one["outcome"] for one in document["ended"]] == ["cancelled"]
                    break
            command.send_signal(signal.SIGINT)
            out, err = await command.communicate()
        assert (command.returncode, err) == (0, b""), out


async def test_a_frozen_host_is_named_and_what_else_is_known_is_shown_without_it(site: Site, agents: Agents) -> None:
    frozen = [daemon.process for daemon in (site.source("host-b"), site.dest("host-b")) if daemon.process is not None]
    async with machine(site, agents, specification("beside")) as created:
        await works(site, "host-a", created.machine)
        for process in frozen:
            process.send_signal(signal.SIGSTOP)
        try:
            async with running(site, "watch", "--json") as command, asyncio.timeout(DEADLINE):
                assert command.stdout is not None
                first = json.loads(await command.stdout.readline())
        finally:
            for process in frozen:
                process.send_signal(signal.SIGCONT)
    obstacles = {one["host"]: [each["code"] for each in one["obstacles"]] for one in first["hosts"]}
    assert (obstacles["host-a"], obstacles["host-b"]) == ([], ["not-answered-yet"])
    assert first["unheard"] == "not every host has told of its attempts yet"


async def test_a_terminal_is_drawn_on_and_left_as_it_was(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("drawn")) as created:
        await works(site, "host-a", created.machine)
        attempt = await started(agents, created.machine, "host-a", "host-b", endless())
        text, exit_code = await asyncio.to_thread(drawn, site, ["drawn", "pre-copy", "3 hosts, 1 in flight"])
        assert exit_code == 0, text
        assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0, "the cursor was taken, and is back"
        await agents.cancel("host-a", attempt.key)


def drawn(site: Site, words: list[str]) -> tuple[str, int]:
    """Run `viaduct watch` on a terminal until it shows these words, then interrupt it; return all that it wrote."""
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [program("viaduct"), "watch", "--config", str(site.configuration("operator"))]
    there = {**environment(), "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=its_end, stderr=its_end, env=there) as process:
        os.close(its_end)
        found, interrupted = b"", False
        readable, until = select.poll(), time.monotonic() + DEADLINE
        readable.register(terminal, select.POLLIN)
        try:
            while readable.poll(max(0.0, until - time.monotonic()) * 1000):
                found += os.read(terminal, 65536)
                if not interrupted and all(word.encode() in found for word in words):
                    process.send_signal(signal.SIGINT)
                    interrupted = True
        except OSError:  # the other end is closed: it has ended
            pass
        finally:
            process.kill()
            os.close(terminal)
    return found.decode(), process.returncode
