"""What the processes of the lab's site had to say: their logs, one JSON object a line."""

import json
from pathlib import Path
from typing import Final

_LOUD: Final = frozenset({"warning", "error", "critical"})


class Logs:
    """The logs below a folder, read from where they were left off."""

    def __init__(self, folder: Path) -> None:
        self._folder: Final = folder
        self._read: Final[dict[Path, int]] = {}

    def new_complaints(self) -> tuple[str, ...]:
        """Return every warning and error, and every line that is no log line at all, since the last call.

        A line that is still being written is left for the next call.
        """
        found: list[str] = []
        for path in sorted(self._folder.rglob("*.log")):
            data, read = path.read_bytes(), self._read.get(path, 0)
            whole = data.rfind(b"\n") + 1
            fresh, self._read[path] = data[read:whole], max(read, whole)
            found += [f"{path.name}: {line}" for line in fresh.decode(errors="replace").splitlines() if _is_loud(line)]
        return tuple(found)


def _is_loud(line: str) -> bool:
    try:
        entry: object = json.loads(line)
    except ValueError:
        return bool(line.strip())
    return not isinstance(entry, dict) or entry.get("level") in _LOUD
