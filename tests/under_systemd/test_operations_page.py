"""docs/operations.md, followed word for word on three machines that run systemd; what it installs is there already."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pytest

from tests.under_systemd.booted import REPOSITORY, Booted, booted

PAGE = REPOSITORY / "docs" / "operations.md"
ADDRESSES = {"desk": "10.0.0.9", "host-a": "10.0.0.1", "host-b": "10.0.0.2"}
WHERE = {"all": [*ADDRESSES], "hosts": ["host-a", "host-b"], **{name: [name] for name in ADDRESSES}}
INSTALLS = re.compile(r"apt-get|/pip install|python3 -m venv|^ln -sf /opt/viaduct")
PROMPT = re.compile(rf"({'|'.join(WHERE)})# (.*)")
MIGRATED = re.compile(r"^guest  host-a -> host-b  completed\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Command:
    """What a person types after a prompt, on one machine or on several."""

    where: str
    text: str


def commands(page: str) -> Iterator[Command]:
    """Yield the commands of a page's consoles, with their here documents; what they print is left out."""
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        lines = iter(block.splitlines())
        for line in lines:
            prompt = PROMPT.match(line)
            if prompt is None:
                continue
            typed = [prompt[2]]
            document = re.search(r"<<'?(\w+)'?", prompt[2])
            while document is not None and typed[-1] != document[1]:
                typed.append(next(lines))
            yield Command(prompt[1], "\n".join(typed))


@dataclass(frozen=True, slots=True)
class Site:
    """The machines of the page, and what was exported in their shells."""

    machines: dict[str, Booted]
    exported: dict[str, str] = field(default_factory=dict)

    def type(self, name: str, text: str) -> str:
        """Type a command on one machine, and return what it prints; AssertionError where it fails."""
        if text.startswith("export "):
            key, _, value = text.removeprefix("export ").partition("=")
            self.exported[key] = value
            return ""
        if text.startswith("scp "):
            return self._copy(text)
        environment = [f"{key}={value}" for key, value in self.exported.items()]
        return self.machines[name].run("env", *environment, "HOME=/root", "bash", "-c", f"cd /root && {text}")

    def _copy(self, text: str) -> str:
        """Do what scp would: nobody logs in here."""
        *files, target = text.split()[2:]
        name, _, folder = target.partition(":")
        for file in files:
            copied = self.machines["desk"].run("cat", file)
            self.machines[name].write(str(PurePosixPath(folder) / PurePosixPath(file).name), copied, "600")
        return ""


@pytest.fixture
def site() -> Iterator[Site]:
    """Three machines on one network, with this repository where the page has it."""
    with ExitStack() as stack:
        machines = {name: stack.enter_context(booted()) for name in ADDRESSES}
        desk = machines["desk"]
        desk.run("ip", "link", "add", "lan", "type", "bridge")
        for name, machine in machines.items():
            machine.run("hostname", name)
            machine.run("ln", "-s", "/opt/source", "/usr/local/src/viaduct")
            wire = "lan"
            if machine is not desk:
                wire = "eth0"
                desk.wire(name, machine, wire)
                desk.run("ip", "link", "set", name, "master", "lan", "up")
            machine.run("ip", "address", "add", f"{ADDRESSES[name]}/24", "dev", wire)
            machine.run("ip", "link", "set", wire, "up")
        yield Site(machines)


@pytest.mark.timeout(300)  # some fifty commands, each an interpreter
def test_a_person_who_follows_the_page_gets_to_two_hosts_and_back(site: Site) -> None:
    printed: dict[str, str] = {}
    for command in commands(PAGE.read_text(encoding="utf-8")):
        for name in WHERE[command.where]:
            if not INSTALLS.search(command.text):
                printed[command.text] = site.type(name, command.text)
    assert printed["viaduct doctor"].rstrip().endswith("Nothing is wrong")
    assert MIGRATED.search(printed["viaduct migrate guest --to host-b"])
    assert "1 of 1 moved" in printed["viaduct evacuate host-b"]
    assert "1 of 1 moved" in printed["viaduct restore host-b"]
