"""What a QEMU program of this host can be, asked of the program itself, and why a machine cannot be made by it here.

A type such as `q35` is another machine in each version of QEMU, and a stream of one does not fit the other. So a type
is settled to the versioned one when a machine is made, and a destination has to know that very type: an older QEMU does
not.
"""

import contextlib
import os
import re
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from vm_migration.machine.qemu.answers import Capability
from vm_migration.machine.qemu.programs import program_for
from vm_migration.machine.qemu.streaming import LACKING, lacking
from vmm.assembly.qemu_specification import QemuSpecification
from vmm.process.control import Observation

_ASK_SECONDS: Final = 10.0
_VERSION: Final = re.compile(r"version (\S+)")
_MACHINE: Final = re.compile(r"^(\S+)\s.*?(?:\(alias of (\S+)\))?(?: \(default\))?$")
_CPU: Final = re.compile(r"^(?:x86 )?\s*(\S+)")
_KVM: Final = Path("/dev/kvm")
_MACHINE_OF_NOTHING: Final = ("-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio")
_QUESTIONS: Final = "".join(
    f'{{"execute": "{command}"}}\n' for command in ("qmp_capabilities", "query-migrate-capabilities", "quit")
)


class _Answer(msgspec.Struct, frozen=True, rename={"returned": "return"}):
    """That to query-migrate-capabilities: no other one is a list."""

    returned: tuple[Capability, ...]


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """A QEMU's version, the machine types, processors and capabilities of its migration that it knows.

    `aliases` says which machine types are other names of which.
    """

    version: str
    machines: frozenset[str]
    aliases: tuple[tuple[str, str], ...]
    cpus: frozenset[str]
    capabilities: frozenset[str]

    def settled(self, machine: str) -> str:
        """Return a machine type, with its options, by the name that means the same in every version."""
        name, comma, options = machine.partition(",")
        return dict(self.aliases).get(name, name) + comma + options


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a host has beside the program: KVM, and files that can be used as a machine does that names them."""

    kvm: bool
    files: frozenset[str]


def judge_program(facts: ProgramFacts, around: Surroundings, wanted: QemuSpecification) -> Iterator[Observation]:
    """Yield everything that keeps a machine from being made here. Pure."""
    machine = wanted.machine.partition(",")[0]
    if machine not in facts.machines:
        text = f"QEMU {facts.version} here knows no machine {machine}"
        yield Observation(code="machine-type-unknown", message=text)
    cpu = _after(wanted.arguments, "-cpu").partition(",")[0]
    if cpu and cpu not in facts.cpus:
        yield Observation(code="cpu-unknown", message=f"QEMU {facts.version} here knows no processor {cpu}")
    if missing := lacking(facts.capabilities, incoming=True):
        yield Observation(code=LACKING, message=f"QEMU {facts.version} here {missing}")
    if _needs_kvm(wanted) and not around.kvm:
        yield Observation(code="no-kvm", message="This host gives no KVM to its agents, and the machine needs it")
    for disk in wanted.disk:
        if disk.file not in around.files:
            done = "read" if disk.read_only else "read and written"
            text = f"Disk {disk.name} is not here: there is no {disk.file} that can be {done}"
            yield Observation(code="disk-not-shared", message=text, device=disk.name)


def surroundings(wanted: QemuSpecification) -> Surroundings:
    """Look at what a host has for a machine."""
    files = frozenset(
        disk.file for disk in wanted.disk if os.access(disk.file, os.R_OK if disk.read_only else os.R_OK | os.W_OK)
    )
    return Surroundings(os.access(_KVM, os.R_OK | os.W_OK), files)


def settled(wanted: QemuSpecification, offered: Collection[str]) -> QemuSpecification:
    """Return a specification whose machine type is the versioned one that its program here takes it for."""
    program = program_for(wanted.binary, offered)
    try:
        return (
            wanted
            if program is None
            else wanted.model_copy(update={"machine": program_facts(program).settled(wanted.machine)})
        )
    except OSError:
        return wanted  # `unmet_by_program` says so


def unmet_by_program(wanted: QemuSpecification, offered: Collection[str]) -> tuple[Observation, ...]:
    """Return everything that keeps a machine from being made by its program; nothing of one that is not offered."""
    program = program_for(wanted.binary, offered)
    if program is None:
        return ()
    try:
        facts = program_facts(program)
    except OSError as error:
        return (Observation(code="kind-not-offered", message=f"QEMU does not run here: {error}"),)
    return tuple(judge_program(facts, surroundings(wanted), wanted))


def program_facts(program: str) -> ProgramFacts:
    """Ask a program; asked again only when its file is another one.

    Raises:
        OSError: It does not run.
    """
    return _asked(program, Path(program).stat().st_mtime_ns)


def read_facts(version: str, machines: str, cpus: str, answers: str) -> ProgramFacts:
    """Return what a QEMU printed for --version, -machine help and -cpu help, and answered over QMP. Pure."""
    found = _VERSION.search(version)
    types = [match for line in machines.splitlines()[1:] if (match := _MACHINE.match(line))]
    models = cpus.partition("\n\n")[0].splitlines()[1:]
    return ProgramFacts(
        version=found[1] if found else "of an unknown version",
        machines=frozenset(match[1] for match in types),
        aliases=tuple((match[1], match[2]) for match in types if match[2]),
        cpus=frozenset(match[1] for line in models if (match := _CPU.match(line))),
        capabilities=frozenset(_capabilities(answers)),
    )


def _capabilities(answers: str) -> Iterator[str]:
    for line in answers.splitlines():
        with contextlib.suppress(msgspec.DecodeError):  # a greeting, an empty answer
            for each in msgspec.json.decode(line, type=_Answer).returned:
                yield each.capability


@lru_cache(maxsize=16)
def _asked(program: str, _changed: int) -> ProgramFacts:
    return read_facts(
        _printed(program, "--version"),
        _printed(program, "-machine", "help"),
        _printed(program, "-cpu", "help"),
        _printed(program, *_MACHINE_OF_NOTHING, said=_QUESTIONS),
    )


def _printed(program: str, *arguments: str, said: str = "") -> str:
    try:
        done = subprocess.run(
            [program, *arguments],
            input=said,
            capture_output=True,
            text=True,
            timeout=_ASK_SECONDS,
            check=True,
        )
    except subprocess.SubprocessError as error:
        raise OSError(f"{program} {' '.join(arguments)} fails: {error}") from error
    return done.stdout


def _after(arguments: tuple[str, ...], option: str) -> str:
    """Return what the last option of a name is given, empty where there is none."""
    found = [value for word, value in pairwise(arguments) if word.lstrip("-") == option.lstrip("-")]
    return found[-1] if found else ""


def _needs_kvm(wanted: QemuSpecification) -> bool:
    asked = _after(wanted.arguments, "-accel").partition(",")[0] == "kvm" or "-enable-kvm" in wanted.arguments
    return asked or "accel=kvm" in wanted.machine.split(",")
