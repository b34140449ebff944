"""What runs on this machine because of a test."""

from pathlib import Path

import psutil


def started_for(folder: Path) -> list[str]:
    """Return the command lines that name something in a test's folder, but for those of the demonstration itself."""
    lines = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = process.info["cmdline"] or ()
        if any(str(folder) in word for word in words) and "demo" not in words:
            lines.append(" ".join(words))
    return lines
