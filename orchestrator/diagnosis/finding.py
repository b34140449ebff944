"""What is wrong, where, and what to do: docs/recovery.md says of every code what it means."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

Severity = Literal["problem", "notice"]
RECOVER: Final = "viaduct recover"


class Code(StrEnum):
    """Every kind of finding; stable, and never of another meaning."""

    TWO_RUNNING = "two-running"
    CONTRADICTION = "contradiction"
    OUTRANKED = "outranked"
    STRAY_RUN = "stray-run"
    ACTIVATION_UNKNOWN = "activation-unknown"
    HANDOVER_WAITING = "handover-waiting"
    FORMER_SOURCE_OPEN = "former-source-open"
    RUN_STATE_OWED = "run-state-owed"
    MACHINE_GONE = "machine-gone"
    MACHINE_SILENT = "machine-silent"
    ABANDONED_IMAGE = "abandoned-image"
    AGENT_COMPLAINS = "agent-complains"
    ATTEMPT_OPEN = "attempt-open"
    JOURNAL_UNREADABLE = "journal-unreadable"
    JOURNAL_MISSING = "journal-missing"
    LEFTOVER_PROCESS = "leftover-process"
    LEFTOVER_FOLDER = "leftover-folder"
    HOST_SILENT = "host-silent"
    OTHER_HOST = "other-host"
    CLOCK_OFF = "clock-off"
    VERSION = "version"
    STORE_UNUSABLE = "store-unusable"
    ORCHESTRATOR_SILENT = "orchestrator-silent"
    BROKER_UNREACHABLE = "broker-unreachable"
    CERTIFICATE_EXPIRES = "certificate-expires"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or worth knowing; host, machine and attempt are empty where it is about none."""

    code: Code
    message: str
    hint: str
    severity: Severity = "problem"
    host: str = ""
    machine: str = ""
    attempt: str = ""

    @property
    def subject(self) -> tuple[str, str, str, str]:
        """What it is about: two looks that find the same say so, in whatever words."""
        return (self.code, self.host, self.machine, self.attempt)
