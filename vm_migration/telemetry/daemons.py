"""Which daemon tells what: every metric says whose it is."""

from enum import StrEnum
from typing import Final


class Daemon(StrEnum):
    """A daemon, by the name of its process."""

    SOURCE = "viaduct-source-agent"
    DEST = "viaduct-dest-agent"
    ORCHESTRATOR = "viaduct-orchestrator"


EVERY: Final = tuple(Daemon)
AGENTS: Final = (Daemon.SOURCE, Daemon.DEST)
