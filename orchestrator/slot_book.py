"""How many machines each host sends and takes at the moment: as it is configured, and more while somebody needs it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from orchestrator.queueing import Slots
from vm_migration.daemon.configuration import Configuration


@dataclass(frozen=True, slots=True)
class _Asked:
    outgoing: Mapping[str, int]
    incoming: Mapping[str, int]
    ahead: int


class SlotBook:
    """The configured slots, and what is asked for beside them under a name. For one event loop."""

    def __init__(self, usual: Slots) -> None:
        self.usual = usual
        self._asked: dict[str, _Asked] = {}
        self._now: Slots | None = None
        self._opening: Slots | None = None

    def ask(self, name: str, outgoing: Mapping[str, int], incoming: Mapping[str, int], ahead: int = 0) -> bool:
        """Have at least so many for these hosts, in the place of what was asked for under the name; say if it is new.

        So many more as are `ahead` may be made ready beside those that send. Two empty mappings ask for nothing.
        """
        before = self._asked.get(name)
        if outgoing or incoming:
            self._asked[name] = _Asked(dict(outgoing), dict(incoming), ahead)
        else:
            self._asked.pop(name, None)
        new = before != self._asked.get(name)
        if new:
            self._now = self._opening = None
        return new

    def now(self) -> Slots:
        """Return how many each host sends and takes at the moment."""
        if self._now is None:
            asked = self._asked.values()
            self._now = self.usual.raised(_most(one.outgoing for one in asked), _most(one.incoming for one in asked))
        return self._now

    def opening(self) -> Slots:
        """Return how many may be open at each host: those, and what is made ready beside them."""
        if self._opening is None:
            asked = self._asked.values()
            self._opening = self.now().raised(
                _most(_more(one.outgoing, one.ahead) for one in asked),
                _most(_more(one.incoming, one.ahead) for one in asked),
            )
        return self._opening


def _most(asked: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the most that is asked for each host."""
    most: dict[str, int] = {}
    for one in asked:
        for host, count in one.items():
            most[host] = max(count, most.get(host, 0))
    return most


def _more(slots: Mapping[str, int], ahead: int) -> dict[str, int]:
    return {host: count + ahead for host, count in slots.items()}


def configured_slots(configuration: Configuration) -> Slots:
    """Return what the configuration says of every host."""
    limits, hosts = configuration.limits, configuration.host.items()
    return replace(
        Slots(limits.outgoing, limits.incoming),
        outgoing_of={name: one.outgoing for name, one in hosts if one.outgoing is not None},
        incoming_of={name: one.incoming for name, one in hosts if one.incoming is not None},
    )
