"""How many machines each host sends and takes at the moment: as it is configured, and more while somebody needs it."""

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.queueing import Slots
from vm_migration.daemon.configuration import Configuration


class SlotBook:
    """The configured slots, and what is asked for beside them under a name. For one event loop."""

    def __init__(self, usual: Slots) -> None:
        self.usual = usual
        self._asked: dict[str, tuple[Mapping[str, int], Mapping[str, int]]] = {}

    def ask(self, name: str, outgoing: Mapping[str, int], incoming: Mapping[str, int]) -> bool:
        """Have at least so many for these hosts, in the place of what was asked for under the name; say if it is new.

        Nothing is asked for with two empty mappings.
        """
        before = self._asked.get(name, ({}, {}))
        if outgoing or incoming:
            self._asked[name] = (dict(outgoing), dict(incoming))
        else:
            self._asked.pop(name, None)
        return before != self._asked.get(name, ({}, {}))

    def now(self) -> Slots:
        """Return what counts at the moment."""
        slots = self.usual
        for outgoing, incoming in self._asked.values():
            slots = slots.raised(outgoing, incoming)
        return slots


def configured_slots(configuration: Configuration) -> Slots:
    """Return what the configuration says of every host."""
    limits, hosts = configuration.limits, configuration.host.items()
    return replace(
        Slots(limits.outgoing, limits.incoming),
        outgoing_of={name: one.outgoing for name, one in hosts if one.outgoing is not None},
        incoming_of={name: one.incoming for name, one in hosts if one.incoming is not None},
    )
