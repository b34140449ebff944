"""What is no QEMU, an older one, one that hangs and one that dies: an exit code, two lines, and nothing left behind."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.system.attempts import MIB, in_the_middle, machine
from tests.system.command import finished, running, viaduct
from tests.system.qemu_machines import bare, offer, two_hosts, until
from tests.system.site import Site
from tests.vm_migration.machine.qemu.spoken_qmp import Answer, speaking

NAME = "qemu-of-the-site"
"""What every host calls its QEMU; host-b's is the older one."""
SLOWLY = ("--max-bandwidth", "1MiB/s", "--measure", "0s")


@pytest.fixture(scope="module")
def shared_site(programs: dict[str, str]) -> Iterator[Site]:
    with two_hosts() as site:
        for host, program in (("host-a", programs["newer"]), ("host-b", programs["debian"])):
            own = site.folder / f"{host}-programs" / NAME
            own.parent.mkdir()
            own.symlink_to(program)
            with site.configuration(host).open("a") as file:
                file.write(offer(str(own), programs["debian"]))
        yield site


@contextlib.asynccontextmanager
async def saying(door: Path, words: bytes) -> AsyncIterator[None]:
    """Have somebody at a socket who says that to whoever comes, and waits."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(serve, door)
    try:
        yield
    finally:
        server.close()


def running_already(_command: str, _arguments: object) -> Answer:
    return {"return": {"status": "running", "running": True}}


async def test_a_socket_that_is_no_qemu_s_is_adopted_by_nobody(site: Site) -> None:
    says = {"none": "Nobody speaks QMP", "mute": "greets nobody", "ssh": "QMP", "test": "not by QEMU itself"}
    doors = {name: site.folder / f"{name}.qmp" for name in says}

    async def create(name: str) -> None:
        path = site.folder / f"{name}.toml"
        adopt = json.dumps(str(doors[name]))
        path.write_text(f'name = "{name}"\nkind = "qemu"\nmemory.size = "64MiB"\n[qemu]\nadopt = {adopt}\n')
        ended = await viaduct(site, "machine", "create", str(path), "--host", "host-a")
        assert ended.exit_code == 3, ended
        assert says[name] in ended.err
        assert len(ended.err.splitlines()) == 2, ended.err
        assert ended.out == ""

    async with (
        saying(doors["mute"], b""),
        saying(doors["ssh"], b"SSH-2.0-OpenSSH_9.2\r\n"),
        speaking(doors["test"], running_already),
    ):
        before = site.written()
        await asyncio.gather(*map(create, says))
        assert site.written() == before
        assert site.machines_at("host-a") == []


async def test_an_older_qemu_is_no_destination(site: Site) -> None:
    async with site.agents() as agents, machine(site, agents, bare(binary=NAME)):
        ended = await viaduct(site, "migrate", "bare", "--to", "host-b")
        assert ended.exit_code == 3
        assert "machine-type-unknown" in ended.out
        assert "pc-q35-10" in ended.out
        assert len(ended.err.splitlines()) <= 2
        assert site.machines_at("host-b") == []


async def test_a_qemu_that_dies_while_it_is_sent_is_lost_and_said_to_be(site: Site) -> None:
    async with site.agents() as agents:
        created = await agents.create_machine("host-a", bare().to_json(), 64 * MIB)
        async with running(site, "migrate", "bare", "--to", "host-b", *SLOWLY) as command:
            await in_the_middle(agents, "host-a", created.machine)
            os.kill(site.instance("host-a", created.machine).vmm.pid, signal.SIGKILL)
            ended = await finished(command)
        assert ended.exit_code == 7, ended
        assert len(ended.err.splitlines()) == 2, ended.err
        assert "process ended" in ended.err
        assert [site.machines_at(host) for host in ("host-a", "host-b")] == [[], []]


async def test_a_qemu_that_hangs_while_it_is_sent_goes_on_where_it_was_when_it_is_back(site: Site) -> None:
    async with site.agents() as agents, machine(site, agents, bare()) as created:
        uuid = created.machine
        async with running(site, "migrate", "bare", "--to", "host-b", *SLOWLY) as command:
            await in_the_middle(agents, "host-a", uuid)
            qemu = site.instance("host-a", uuid).vmm.pid
            os.kill(qemu, signal.SIGSTOP)
            try:
                await until(lambda: site.states("host-a", uuid)[-1:] == ["ABORTED"], "nobody noticed")
            finally:
                os.kill(qemu, signal.SIGCONT)
            ended = await finished(command)
        assert ended.exit_code == 4, ended
        assert len(ended.err.splitlines()) == 2, ended.err
        assert "does not answer" in ended.err
        await until(lambda: site.machines_at("host-b") == [], "its copy stayed")
        assert (await agents.get_machine("host-a", uuid)).run_state == "running"
