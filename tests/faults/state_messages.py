"""When the site's state messages come: a real subscriber, read by a thread."""

import shutil
import subprocess
import threading
import time
from collections.abc import Sequence

_TOPIC = "viaduct/v1/+/migration/+/state"


class StateMessages:
    """Listens from its making on; `heard` are moments of the monotonic clock and topics."""

    def __init__(self, inside: Sequence[str], broker: tuple[str, int]) -> None:
        program = shutil.which("mosquitto_sub")
        assert program, "mosquitto_sub is missing: apt-get install mosquitto-clients"
        where = ("-h", broker[0], "-p", str(broker[1]), "-V", "mqttv5", "-q", "1", "-t", _TOPIC, "-F", "%t")
        self.heard: list[tuple[float, str]] = []
        # Line by line: into a pipe it would write by the block.
        self._process = subprocess.Popen(
            [*inside, "stdbuf", "-oL", program, *where], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._thread = threading.Thread(target=self._listen, name="state messages")
        self._thread.start()

    def first_of(self, attempt: str, after: float) -> float | None:
        """Return when the first message of an attempt came after a moment."""
        return next((at for at, topic in self.heard if at > after and f"/{attempt}/" in topic), None)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._thread.join()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.heard.append((time.monotonic(), line.strip()))
