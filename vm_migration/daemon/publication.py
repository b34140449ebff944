"""One message for the broker, and how long it is worth keeping there."""

from dataclasses import dataclass
from typing import Final

AT_MOST_ONCE: Final = 0
AT_LEAST_ONCE: Final = 1


@dataclass(frozen=True, slots=True)
class Publication:
    """A topic and its document.

    `expires_at`, in seconds since the epoch, is when a retained message shall be gone: MQTT 5 brokers see to it
    themselves, on 3.1.1 the publisher clears it.
    """

    topic: str
    payload: bytes
    qos: int = AT_LEAST_ONCE
    retain: bool = False
    expires_at: float | None = None
    properties: tuple[tuple[str, str], ...] = ()

    @property
    def clears(self) -> bool:
        """Whether it takes a retained message away (MQTT 3.3.1.3: retained, without payload)."""
        return self.retain and not self.payload

    def cleared(self) -> "Publication":
        """Return what takes this retained message away."""
        return Publication(self.topic, b"", self.qos, retain=True)

    def seconds_left(self, now: float) -> int | None:
        """Return the whole seconds it still lives, at least 0; None for ever."""
        return None if self.expires_at is None else max(0, int(self.expires_at - now))
