"""A machine that this process takes over from another: assembled on what there is, then brought to where it stood."""

from collections.abc import Mapping, Sequence
from typing import Final

from vmm.assembly.devices import new_eventfds
from vmm.assembly.machine import Machine
from vmm.assembly.machine_state import InvalidState, StandingState
from vmm.assembly.specification import MachineSpecification
from vmm.memory.ram_block import RamBlock
from vmm.update.adopted_host import AdoptedHost
from vmm.update.documents import (
    RAM,
    EarlyDocument,
    InvalidHandover,
    StateDocument,
    descriptor_names,
    eventfd_names,
)
from vmm.update.documents import Mapping as DmaMapping
from vmm.update.ownership import mappings_of, take, take_back
from vmm.update.rules import ALL_ON, UpdateRules
from vmm.vfio.host_port import Descriptor, HostPort


class AdoptedMachine:
    """A machine that another process has; `take_over` makes it this one's, and `settle` lets it run.

    Raises:
        HostCallFailed: The host lacks what came.
    """

    def __init__(
        self,
        specification: MachineSpecification,
        document: EarlyDocument,
        numbers: Mapping[str, int],
        opened: Mapping[str, Descriptor],
        host: HostPort,
        *,
        rules: UpdateRules = ALL_ON,
    ) -> None:
        """Assemble it on descriptors: the numbers of RAM and eventfds, and the host's objects opened."""
        self._rules: Final = rules
        self._host: Final = AdoptedHost(host, document, opened, rules)
        self._before: tuple[tuple[DmaMapping, ...], ...] = ()

        def eventfds(name: str) -> tuple[int, int]:
            completion, doorbell = eventfd_names(name)
            return numbers[completion], numbers[doorbell]

        made = eventfds if rules.preserve_interrupts else new_eventfds
        self.machine: Final = Machine(specification, RamBlock.adopt(numbers[RAM]), self._host, made)
        if not rules.skip_reset:
            for each in self.machine.devices:
                each.device.reset()

    def take_over(self, state: StateDocument, *, again: bool = False) -> None:
        """Bring vIOMMU and guest to where they stood, and make the mappings this process's. Nothing runs yet.

        `again` where another program may have made a part of them its own before.

        Raises:
            InvalidHandover: The state is not one of this machine. The mappings are as they were.
            HostCallFailed: The host refused mappings; some may be this process's.
        """
        if len(state.mappings) != len(self.machine.listeners):
            raise InvalidHandover(
                f"Mappings of {len(state.mappings)} containers came, not {len(self.machine.listeners)}"
            )
        self._load(state)
        self._host.let_go()
        if again:
            take_back(self.machine, state.mappings)
        else:
            take(self.machine, state.mappings, self._rules)
        self._before = state.mappings

    def rehearse(self, state: StateDocument) -> None:
        """Bring vIOMMU and guest to where they stand in the process that has the machine, and take nothing from it.

        Raises:
            InvalidHandover: The state is not one of this machine, or says that it was let go of.
        """
        if state.mappings:
            raise InvalidHandover("Mappings came to a process that only rehearses")
        self._load(state)

    def _load(self, state: StateDocument) -> None:
        try:
            self.machine.take_over(StandingState(state.origin, state.viommu, state.guest))
        except InvalidState as error:
            raise InvalidHandover(str(error)) from error

    def settle(self) -> None:
        """Map and unmap what the guest had changed in its tables and not told of yet; nothing else is ever different.

        The state was loaded from the tables, so the invalidation that follows would find nothing to change.
        """
        for listener, before, now in zip(self.machine.listeners, self._before, mappings_of(self.machine), strict=True):
            for iova, size, _, _ in sorted(set(before) - set(now)):
                listener.container.unmap(iova, size, None)
            for iova, size, offset, writable in sorted(set(now) - set(before)):
                listener.container.map(iova, offset, size, writable=writable)
            listener.container.flush()
        self._before = mappings_of(self.machine)


def by_name(document: EarlyDocument, numbers: Sequence[int]) -> dict[str, int]:
    """Return descriptors by what they are, of a document that fits them."""
    return dict(zip(document.descriptors, numbers, strict=True))


def host_objects(document: EarlyDocument) -> tuple[str, ...]:
    """Return the names of the descriptors that calls are made on."""
    eventfds = {name for device in document.devices for name in eventfd_names(device.name)}
    names = descriptor_names(document.containers, [device.name for device in document.devices])
    return tuple(name for name in names if name != RAM and name not in eventfds)
