"""What processes of a site use: processor time of all of them together, and the agents' own memory while they work."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

_EVERY: Final = 0.02
_MACHINE: Final = ("vmm.process.main", "vfio_host.process.main")


def processes(folder: Path) -> list[psutil.Process]:
    """Return every process whose command line names the site's folder, and what those have started."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["cmdline"]):
        if not any(str(folder) in word for word in process.info["cmdline"] or ()):
            continue
        found[process.pid] = process
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {child.pid: child for child in process.children(recursive=True)}
    return list(found.values())


def cpu_seconds(folder: Path) -> float:
    """Return the processor time of all of them, and of those that they have started and seen end."""
    total = 0.0
    for process in processes(folder):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def agents(folder: Path) -> dict[int, str]:
    """Return the site's agents and their workers, without the machines that they have started."""
    found = {}
    for process in processes(folder):
        with contextlib.suppress(psutil.NoSuchProcess):
            words = process.cmdline()
            if not any(each in words for each in _MACHINE):
                found[process.pid] = next((Path(word).name for word in words if word.endswith("-agent")), "worker")
    return found


def anonymous_bytes(pid: int) -> int:
    """Return a process's anonymous resident memory (proc(5), RssAnon): a guest's RAM, which is shared, is not in it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


class MemoryWatch:
    """The most that any one agent has held since the watch began, looked at fifty times a second."""

    def __init__(self, folder: Path) -> None:
        self._pids = list(agents(folder))
        self._over = threading.Event()
        self.most = 0

    def _look(self) -> None:
        while not self._over.wait(_EVERY):
            for pid in self._pids:
                with contextlib.suppress(OSError):
                    self.most = max(self.most, anonymous_bytes(pid))

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the context is entered."""
        looking = threading.Thread(target=self._look, name="memory watch", daemon=True)
        looking.start()
        try:
            yield
        finally:
            self._over.set()
            looking.join()
