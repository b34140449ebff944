"""What every host says of itself at this moment: what it offers, what is left of it, what it has to do.

Who does not answer is named. What is not said, as by agents of 0.1.0, is unknown, which is not the same as missing.
Clocks of day are not compared: nothing rests on them. Pure.
"""

from dataclasses import dataclass
from typing import Final

from orchestrator.attempt import Notice
from vm_migration.api.v1.types_pb2 import HostFacts
from vm_migration.daemon.host_offer import HostOffer
from vm_migration.errors import MigrationError

UNREACHABLE: Final = "unreachable"
OTHER_HOST: Final = "other-host"
TWO_HOSTS: Final = "two-hosts-of-one-name"
CORRECT: Final = "Correct [host.{host}] here, or [agent] host there"
"""What to do about an agent that is another host's."""


@dataclass(frozen=True, slots=True)
class HostStanding:
    """One host; None is for what is not known. Memory in bytes, the link of `offer` in bytes a second."""

    host: str
    obstacles: tuple[Notice, ...] = ()
    """Why it cannot be a destination, whatever the machine: it is silent, or not who it should be."""
    version: str | None = None
    features: frozenset[str] = frozenset()
    memory_budget: int | None = None
    memory_free: int | None = None
    machines: int | None = None
    attempts_out: int | None = None
    attempts_in: int | None = None
    offer: HostOffer | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """What the two agents of a host answered, or why they did not."""

    source: HostFacts | MigrationError
    dest: HostFacts | MigrationError

    @property
    def facts(self) -> dict[str, HostFacts]:
        """What those said that answered."""
        sides = {"source": self.source, "dest": self.dest}
        return {side: told for side, told in sides.items() if isinstance(told, HostFacts)}


def standing(host: str, heard: Heard) -> HostStanding:
    """Return what both agents' answers come to. Pure.

    The destination agent's word counts, as it is who takes machines in; without its source agent a host can take a
    machine in, and what leaves it is not known.
    """
    obstacles, dest = identity_obstacles(host, heard), heard.dest
    if isinstance(dest, MigrationError):
        return HostStanding(host, (Notice(UNREACHABLE, dest.message), *obstacles))
    return HostStanding(
        host=host,
        obstacles=obstacles,
        version=dest.version or None,
        features=frozenset(dest.features),
        memory_budget=dest.memory_budget_bytes or None,
        memory_free=_free(dest),
        machines=dest.load.machines if dest.HasField("load") else None,
        attempts_out=_attempts(heard.facts.get("source")),
        attempts_in=_attempts(dest),
        offer=HostOffer.told(dest),
    )


def identity_obstacles(host: str, heard: Heard) -> tuple[Notice, ...]:
    """Return what speaks against the agents being those of the host that they are configured as."""
    strangers = (somebody_else(host, side, facts.host) for side, facts in heard.facts.items())
    found = tuple(one for one in strangers if one is not None)
    boots = sorted({facts.boot_id for facts in heard.facts.values() if facts.boot_id})
    if not found and len(boots) > 1:
        text = f"The two agents of {host} run on two machines, or on two boots of one: {' and '.join(boots)}"
        return (Notice(TWO_HOSTS, text),)
    return found


def somebody_else(host: str, side: str, says: str) -> Notice | None:
    """Return what speaks against an agent, which says of which host it is, being the configured host's."""
    if says in ("", host):
        return None
    return Notice(OTHER_HOST, f"The {side} agent that is configured for {host} says that it is of {says}")


def _free(facts: HostFacts) -> int | None:
    if facts.HasField("load"):
        return facts.load.memory_free_bytes
    if not facts.memory_budget_bytes:
        return None
    return max(0, facts.memory_budget_bytes - facts.memory_in_use_bytes)  # 0.1.0 tells that


def _attempts(facts: HostFacts | None) -> int | None:
    return facts.load.attempts if facts is not None and facts.HasField("load") else None
