"""Hosts of a test site, each in a network namespace of its own, behind one bridge, and the cables between them.

::

    lane's namespace:   br0 10.7.0.1
                         |        |        |          |             |
    cables              host-a   host-b   host-c   orchestrator   broker      (one namespace each)

A pulled cable closes nothing: what is sent is not heard, and nobody is told. A namespace lives in a process that only
waits, and ends with its standard input, so that nothing of a network outlives whoever made it.

Where the machine allows no namespaces, everybody is on loopback, and there are no cables to pull.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vm_migration.loopback.ports import free_ports

BRIDGE = "br0"
_NET = "10.7.0"
_SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_OWN_WORLD = ("--net", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")


class Network(Protocol):
    """Where the hosts of a site are, and who hears whom."""

    @property
    def has_cables(self) -> bool:
        """Whether partitions can be made at all."""

    def address(self, name: str) -> str:
        """Return a host's IP address."""

    def ports(self, count: int) -> Sequence[int]:
        """Return ports that are free on a host."""

    def inside(self, name: str) -> list[str]:
        """Return the command that puts another command on a host."""

    def cut(self, name: str) -> None:
        """Pull a host's cable."""

    def separate(self, names: Sequence[str]) -> None:
        """Let some hosts hear everybody but each other."""

    def heal(self) -> None:
        """Mend everything."""

    def close(self) -> None:
        """Take the network down."""


class Loopback:
    """No network: everybody is on loopback."""

    has_cables = False

    def address(self, name: str) -> str:
        del name
        return "127.0.0.1"

    def ports(self, count: int) -> Sequence[int]:
        return list(free_ports(count))

    def inside(self, name: str) -> list[str]:
        del name
        return []

    def cut(self, name: str) -> None:
        raise AssertionError(f"{name} has no cable")

    def separate(self, names: Sequence[str]) -> None:
        raise AssertionError(f"{' and '.join(names)} have no cables")

    def heal(self) -> None:
        return

    def close(self) -> None:
        return


@dataclass
class Namespaces:
    """One network namespace a host; made in a network namespace that is this process's own."""

    names: Sequence[str]
    holders: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    has_cables: bool = True

    def __post_init__(self) -> None:
        _ip("link", "set", "lo", "up")
        _ip("link", "add", BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{_NET}.1/24", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        for name in self.names:
            self._plug_in(name)

    def address(self, name: str) -> str:
        return f"{_NET}.{10 + self.names.index(name)}"

    def ports(self, count: int) -> Sequence[int]:
        return range(7001, 7001 + count)  # a namespace that was just made has all of them free

    def inside(self, name: str) -> list[str]:
        return [_program("nsenter"), f"--net=/proc/{self.holders[name].pid}/ns/net", "--"]

    def cut(self, name: str) -> None:
        _ip("link", "set", self._cable(name), "down")

    def separate(self, names: Sequence[str]) -> None:
        for name in names:
            _run("bridge", "link", "set", "dev", self._cable(name), "isolated", "on")

    def heal(self) -> None:
        for name in self.names:
            _run("bridge", "link", "set", "dev", self._cable(name), "isolated", "off")
            _ip("link", "set", self._cable(name), "up")

    def close(self) -> None:
        for holder in self.holders.values():
            if holder.stdin is not None:
                holder.stdin.close()
            holder.wait()
        _ip("link", "del", BRIDGE)

    def _plug_in(self, name: str) -> None:
        holder = subprocess.Popen(
            [_program("unshare"), "--net", "sh", "-c", "echo in; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.holders[name] = holder
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"in\n", f"no namespace for {name}"
        holder.stdout.close()
        cable = self._cable(name)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        _ip("link", "set", cable, "master", BRIDGE, "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self.address(name)}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
        ):
            _run(*self.inside(name), "ip", *words)

    def _cable(self, name: str) -> str:
        return f"v{self.names.index(name)}"


@functools.cache
def own_world() -> tuple[str, ...] | None:
    """Return the command that gives another command namespaces of its own, or None where the machine allows none.

    Everything that such a command starts ends with it: it lives in a namespace of processes.
    """
    if shutil.which("unshare", path=_SEARCH) is None or shutil.which("ip", path=_SEARCH) is None:
        return None
    for user in ((), ("--map-root-user",)):
        command = (_program("unshare"), *user, *_OWN_WORLD)
        probe = [*command, "sh", "-c", "ip link add v0 type veth peer name v1 && ip link add b0 type bridge"]
        if subprocess.run(probe, capture_output=True, check=False, env=_environment()).returncode == 0:
            return command
    return None


def listening(pid: int) -> frozenset[str]:
    """Return who listens in a process's network namespace, as local addresses in the kernel's own notation."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        found |= {fields[1] for fields in map(str.split, lines) if fields[3] == "0A"}
    return frozenset(found)


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> None:
    done = subprocess.run(
        [_program(words[0]), *words[1:]], capture_output=True, check=False, text=True, env=_environment()
    )
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"


def _program(name: str) -> str:
    found = shutil.which(name, path=_SEARCH)
    assert found, f"{name} is missing: apt-get install iproute2 util-linux"
    return found


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": _SEARCH}
