"""A machine of the deployed site, as the commands tell of it and as its processes do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from tests.deployment.deployment import Deployment, Ended, ended, heard

_USUAL: Final = """
name = "{name}"
memory.size = "64MiB"
[guest]
cpu_dirty_rate = "4MiB/s"
working_set = "8MiB"
[[device]]
name = "qat0"
model = "qat"
address = "00:04.0"
dma_rate = "2MiB/s"
"""


PAGES: Final = (64 << 20) // 4096
PATIENTLY: Final = ("--downtime-limit", "2s")
"""Everything is hashed at the pause, and a test machine's processors are everybody's."""
AT_ONCE: Final = (*PATIENTLY, "--measure", "0s")
"""Nothing is forecast from what is measured first: that takes a second of each."""


class _Guest(msgspec.Struct):
    errors: int
    jobs_done: int


class Shown(msgspec.Struct):
    """What `machine show --json` says, as far as it matters here."""

    machine: str
    host: str
    run_state: str
    guest: _Guest


class _Answer(msgspec.Struct):
    machine: Shown


class Round(msgspec.Struct):
    """A round of a migration."""

    wire_bytes: int
    ms: float


class Migrated(msgspec.Struct):
    """What `migrate --json` says, as far as it matters here."""

    attempt: str
    outcome: str | None
    verified_by: str
    pages_verified: int
    pages_mismatched: int
    wire_bytes: int
    rounds: list[Round]


def migrated(command: Ended) -> Migrated:
    """Return what a migration's command said."""
    return msgspec.json.decode(command.out, type=Migrated)


@dataclass(frozen=True)
class Moving:
    """A machine on its way, and the command that watches it."""

    site: Deployment
    attempt: str
    command: asyncio.subprocess.Process

    def let_go(self) -> None:
        """Let it send as fast as it can."""
        tuned = self.site.viaduct("tune", self.attempt, "--max-bandwidth", "unlimited")
        assert tuned.exit_code == 0, tuned.err

    async def ended(self) -> Ended:
        """Wait for its end."""
        return await ended(self.command)


@dataclass(frozen=True)
class Machine:
    """A machine, by its name and UUID."""

    site: Deployment
    name: str
    uuid: str

    @classmethod
    def create(cls, site: Deployment, name: str, specification: str = _USUAL, *, host: str = "host-a") -> Self:
        """Make a machine; its specification has a place for its name."""
        site.inside("operator", "sh", "-c", "cat > /tmp/guest.toml", stdin=specification.format(name=name))
        made = site.viaduct("machine", "create", "/tmp/guest.toml", "--host", host, "--json")  # noqa: S108  # in a container
        assert made.exit_code == 0, made.err
        return cls(site, name, msgspec.json.decode(made.out, type=_Answer).machine.machine)

    def show(self) -> Shown:
        """Return what the site says of it."""
        shown = self.site.viaduct("machine", "show", self.name, "--json")
        assert shown.exit_code == 0, shown.err
        return msgspec.json.decode(shown.out, type=_Answer).machine

    def way(self) -> tuple[str, str]:
        """Return where it has a process, and the one of host-a and host-b where it has none."""
        (here,) = (host for host, machines in self.site.machine_processes().items() if self.uuid in machines)
        return here, "host-a" if here == "host-b" else "host-b"

    @contextlib.asynccontextmanager
    async def moving_to(
        self, host: str, bandwidth: str = "20Mbit/s", compression: str = "none"
    ) -> AsyncIterator[Moving]:
        """Have it on its way, in the middle of which it is; what it writes at usual is more: it stays there."""
        slowly = ("--max-bandwidth", bandwidth, "--compression", compression, *AT_ONCE)
        submitted = self.site.viaduct("migrate", self.name, "--to", host, "--detach", "--json", *slowly)
        assert submitted.exit_code == 0, submitted.err
        attempt = migrated(submitted).attempt
        async with self.site.typing("watch", attempt) as watching:
            await heard(watching, "pre-copy")
            yield Moving(self.site, attempt, watching)

    def runs_at(self, host: str) -> None:
        """Check that it runs on one host and on no other, that its guest works, and has never read a wrong byte."""
        self.site.processes_are({host: [self.uuid]})
        self.works_at(host)

    def works_at(self, host: str) -> None:
        """Check the same, whoever else runs beside it."""
        first = self.show()
        assert (first.host, first.run_state) == (host, "running")
        second = self.show()
        assert second.guest.jobs_done > first.guest.jobs_done
        assert second.guest.errors == 0

    def destroy(self) -> None:
        """End it, wherever it is."""
        destroyed = self.site.viaduct("machine", "destroy", self.name)
        assert destroyed.exit_code == 0, destroyed.err
