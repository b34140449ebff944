"""Whether a machine fits on this host, and keeping its place until its processes show it."""

from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from vm_migration.api.v1 import types_pb2
from vm_migration.daemon.host_facts import VERSION, speaks
from vm_migration.daemon.host_offer import HostOffer, unmet
from vm_migration.errors import InvalidInput, Refused
from vm_migration.machine.errors import MachineGone
from vm_migration.machine.hypervisor import Hypervisor, MachinePlace
from vm_migration.machine.memory_use import memory_left
from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.machine_state import STATE_FORMAT
from vmm.assembly.quantity_text import format_size
from vmm.assembly.specification import MachineSpecification, parse_specification
from vmm.process.control import Observation

MOST_ARRIVALS: Final = 16
"""At a time."""
MOST_STREAMS: Final = 16
"""Of one attempt; a source asks for as many at most."""


class Admission:
    """The host's memory budget, the names that are taken, and how many machines may be arriving."""

    def __init__(
        self,
        host: str,
        hypervisor: Hypervisor,
        memory_budget: int,
        arriving: Sized = (),
        most_arrivals: int = MOST_ARRIVALS,
        *,
        offer: HostOffer | None = None,
    ) -> None:
        self.memory_budget: Final = memory_budget
        self._host: Final = host
        self._hypervisor: Final = hypervisor
        self._promised: Final[dict[str, int]] = {}
        self._arriving: Final = arriving
        self._most_arrivals: Final = most_arrivals
        self._offer: Final = HostOffer() if offer is None else offer

    @property
    def reserved(self) -> Mapping[str, int]:
        """The memory of machines that are being brought up, by UUID, in bytes."""
        return MappingProxyType(self._promised)

    @property
    def memory_left(self) -> int:
        """What the budget leaves for further machines, in bytes; below 0 where it was made smaller."""
        return memory_left(self._hypervisor, self.memory_budget, self._promised)

    def check(self, requirements: types_pb2.Requirements) -> list[Observation]:
        """Return everything that speaks against taking a machine in; nothing is changed."""
        found = []
        if not speaks(requirements.version) or requirements.state_format != STATE_FORMAT:
            text = f"Source has version {requirements.version}, {self._host} has {VERSION}"
            found.append(Observation(code="version", message=text))
        if len(self._promised) + len(self._arriving) >= self._most_arrivals:
            text = f"{self._most_arrivals} machines are arriving at {self._host} already"
            found.append(Observation(code="too-many-arrivals", message=text))
        left = self.memory_left
        if requirements.ram_bytes > left:
            text = f"{self._host} has {format_size(max(0, left))} left of its memory budget; "
            text += f"{format_size(requirements.ram_bytes)} are needed"
            found.append(Observation(code="no-memory", message=text))
        for place in self._hypervisor.all():
            same_id = str(place.machine) == requirements.machine
            if place.alive() and (same_id or _name_in(place) == requirements.name):
                text = f"A machine {requirements.name} ({place.machine}) is on {self._host} already"
                found.append(Observation(code="machine-exists", message=text))
        return [*found, *self._unmet(requirements)]

    def _unmet(self, requirements: types_pb2.Requirements) -> tuple[Observation, ...]:
        try:
            wanted = parse_specification(requirements.specification)
        except InvalidDocument:  # Prepare says what is wrong with it
            return ()
        return (*unmet(self._offer, wanted, self._host), *self._hypervisor.unmet(wanted))

    @contextmanager
    def place(self, requirements: types_pb2.Requirements) -> Iterator[None]:
        """Keep a machine's memory for it while it is brought up, so that no other arrival is given it meanwhile.

        Raises:
            Refused: It does not fit.
        """
        blockers = self.check(requirements)
        if blockers:
            text = "; ".join(each.message for each in blockers)
            raise Refused(blockers[0].code, text, "Choose another destination, or make room")
        self._promised[requirements.machine] = requirements.ram_bytes
        try:
            yield
        finally:
            del self._promised[requirements.machine]


def specification_in(requirements: types_pb2.Requirements) -> MachineSpecification:
    """Read the specification of a machine that asks to be taken in.

    Raises:
        InvalidInput: It is not valid here, or asks for other memory than its requirements say.
    """
    try:
        specification = parse_specification(requirements.specification)
    except InvalidDocument as error:
        text = "; ".join(str(fault) for fault in error.faults)
        raise InvalidInput("invalid-specification", f"Specification is not valid here: {text}") from error
    if specification.memory.size != requirements.ram_bytes:
        text = f"{requirements.ram_bytes} bytes are asked for, the specification has {specification.memory.size}"
        raise InvalidInput("invalid-requirements", text)
    return specification


def streams_in(asked: int) -> int:
    """Return for how many streams room is made, of as many as a driver asks for; 0, which is not said, is one.

    Raises:
        InvalidInput: They are too many.
    """
    if asked > MOST_STREAMS:
        raise InvalidInput("invalid-requirements", f"{asked} streams are asked for; {MOST_STREAMS} may be")
    return max(1, asked)


def _name_in(place: MachinePlace) -> str:
    try:
        return parse_specification(place.specification()).name
    except (MachineGone, InvalidDocument):
        return ""
