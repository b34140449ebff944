"""Which machine lives where: asked of every configured host, each time.

A host that does not answer is named; what lives there is unknown, not nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.agents import Agents, of_each
from orchestrator.host_standing import CORRECT, OTHER_HOST
from vm_migration.api.v1.types_pb2 import MachineStatus
from vm_migration.errors import InvalidInput, MigrationError, Refused, Unreachable

_NOT_HERE: Final = frozenset({"PREPARED", "READY", "ACTIVATING", "DISCARDED", "RETIRED", "LOST"})
_LIST_HINT: Final = "See what there is: viaduct machine list"


@dataclass(frozen=True, slots=True)
class Survey:
    """What the hosts answered; one that answers as another counts as silent."""

    machines: tuple[MachineStatus, ...]
    silent: Mapping[str, MigrationError]

    @property
    def owned(self) -> tuple[MachineStatus, ...]:
        """The machines that a host owns: neither arriving there nor gone from there."""
        return tuple(one for one in self.machines if one.state not in _NOT_HERE)

    @property
    def lost(self) -> frozenset[str]:
        """The UUIDs of the machines of which a host says that nobody has them whole."""
        return frozenset(one.machine for one in self.machines if one.state == "LOST")


async def survey(agents: Agents) -> Survey:
    """Ask every host for its machines, many at a time.

    Raises:
        InvalidInput: The own configuration is wrong: an address, or the TLS files.
    """
    machines: list[MachineStatus] = []
    silent: dict[str, MigrationError] = {}

    async def ask(host: str) -> None:
        try:
            machines.extend(_of(host, await agents.list_machines(host)))
        except InvalidInput:  # our own configuration, not the host
            raise
        except MigrationError as error:
            silent[host] = error

    await of_each(agents.hosts, ask)
    machines.sort(key=lambda one: (one.name, one.host))
    return Survey(tuple(machines), dict(sorted(silent.items())))


def _of(host: str, told: tuple[MachineStatus, ...]) -> tuple[MachineStatus, ...]:
    """Return what a host told of its machines.

    Raises:
        Refused: It told of another host's: what lives on this one is not known then.
    """
    others = sorted({one.host for one in told} - {"", host})
    if others:
        text = f"The source agent that is configured for {host} tells of machines on {', '.join(others)}"
        raise Refused(OTHER_HOST, text, CORRECT.format(host=host))
    return told


def owned_at(host: str, told: MachineStatus) -> MachineStatus:
    """Return a machine that a host was asked for, where the host owns it.

    Raises:
        InvalidInput: It does not.
        Refused: It told of another host's.
    """
    owned = Survey(_of(host, (told,)), {}).owned
    if not owned:
        raise InvalidInput("unknown-machine", f"{told.name or told.machine} is not on {host} any more", _LIST_HINT)
    return owned[0]


def resolve(machine: str, found: Survey) -> MachineStatus:
    """Return the one machine of this name or UUID.

    Raises:
        InvalidInput: Every host answered and none has it: `unknown-machine`.
        Unreachable: None of those that answered has it, and a host is silent.
        Refused: Two machines have the name, or two hosts say that they own the machine.
    """
    matches = [one for one in found.owned if machine in {one.name, one.machine}]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise _ambiguous(machine, matches)
    if found.silent:
        silent = ", ".join(found.silent)
        first = next(iter(found.silent.values()))
        raise Unreachable(
            "host-silent",
            f'No host that answers has machine "{machine}", and {silent} did not answer: {first.message}',
            f"Start the agents of {silent}, or correct [host] in the configuration",
        )
    raise InvalidInput("unknown-machine", f'No host has a machine "{machine}"', _LIST_HINT)


def require_free_name(name: str, found: Survey) -> None:
    """Accept a name for a new machine.

    Raises:
        Refused: A machine has it.
        Unreachable: A host is silent, so that nobody can know.
    """
    for one in found.owned:
        if one.name == name:
            raise Refused("machine-exists", f'Machine "{name}" exists on {one.host}', "Choose another name")
    if found.silent:
        silent = ", ".join(found.silent)
        raise Unreachable(
            "host-silent",
            f'Whether "{name}" is free cannot be known: {silent} did not answer',
            f"Start the agents of {silent}, or take the host out of the configuration",
        )


def ambiguous_machine(name: str, places: Sequence[tuple[str, str]]) -> Refused:
    """Return the refusal of a name that several machines have: each where it is, and its UUID."""
    found = " and ".join(f"{host} ({machine})" for host, machine in places)
    text = f'{"Two" if len(places) == 2 else len(places)} machines are named "{name}": on {found}'
    return Refused("ambiguous-machine", text, "Give the UUID instead")


def _ambiguous(machine: str, matches: list[MachineStatus]) -> Refused:
    if len({one.machine for one in matches}) == 1:
        places = " and ".join(f"{one.host} ({one.machine})" for one in matches)
        return Refused("machine-on-two-hosts", f"Machine {machine} is claimed by {places}", "Compare both journals")
    return ambiguous_machine(machine, [(one.host, one.machine) for one in matches])
