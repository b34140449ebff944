"""The topics of docs/asyncapi.yaml: `viaduct/v1/{site}/...`, one value a topic, so that a broker can keep ACLs."""

from dataclasses import dataclass
from typing import Literal

from vm_migration.errors import InvalidInput

Side = Literal["source", "dest"]


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one site. Every method raises InvalidInput for a name that would change the topic's shape."""

    site: str

    def __post_init__(self) -> None:
        _level(self.site)

    def orchestrator(self, orchestrator: str) -> str:
        """Where an orchestrator, or a CLI that drives, says that it is there."""
        return f"{self.prefix}/orchestrator/{_level(orchestrator)}/status"

    def agent(self, host: str, side: Side) -> str:
        """Where an agent says that it is there."""
        return f"{self.prefix}/agent/{_level(host)}/{side}/status"

    def state(self, attempt: str) -> str:
        """The whole state of an attempt, retained."""
        return f"{self.prefix}/migration/{_level(attempt)}/state"

    def progress(self, attempt: str) -> str:
        """How far an attempt is, at most once a second."""
        return f"{self.prefix}/migration/{_level(attempt)}/progress"

    def event(self, attempt: str) -> str:
        """Every transition of an attempt."""
        return f"{self.prefix}/migration/{_level(attempt)}/event"

    def owner(self, machine: str) -> str:
        """Which host owns a machine, retained."""
        return f"{self.prefix}/machine/{_level(machine)}/owner"

    def evacuation(self, evacuation: str) -> str:
        """How an evacuation or a restore stands, retained."""
        return f"{self.prefix}/evacuation/{_level(evacuation)}/state"

    @property
    def prefix(self) -> str:
        """What every topic of the site begins with."""
        return f"viaduct/v1/{self.site}"


def _level(text: str) -> str:
    if not text or text.startswith("$") or any(sign in "/+#" or not sign.isprintable() for sign in text):
        raise InvalidInput("bad-topic", f'"{text[:80]}" cannot be part of an MQTT topic', "Use no /, + or #")
    return text
