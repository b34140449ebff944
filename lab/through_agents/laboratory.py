"""The lab's site while it runs: two hosts, their agents, and the watch over handoffs."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from lab.page_comparison import differing_pages
from lab.through_agents.agents_of_site import connected
from lab.through_agents.handoffs import hooks_text, watching
from lab.through_agents.process_ram import open_ram, pid_of
from lab.through_agents.scenario_run import HOSTS, Laboratory
from vm_migration.daemon.configuration import load
from vm_migration.loopback.site import SitePlan, run_directory, running_site
from vmm.memory.ram_block import RamBlock

_SITE: Final = "lab"


@contextlib.asynccontextmanager
async def laboratory(memory_budget: int) -> AsyncIterator[Laboratory]:
    """Run the site; each host has room for `memory_budget` bytes of machines. Nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="viaduct-lab-") as name:
        folder = Path(name)
        directories = {host: run_directory(folder, host) for host in HOSTS}
        plan = SitePlan(_SITE, HOSTS, memory_budget, hooks=hooks_text(folder))
        async with (
            watching(folder, lambda machine: _compare(directories, machine)) as handoffs,
            running_site(folder, plan) as path,
            connected(load(path, {})) as agents,
        ):
            yield Laboratory(agents, handoffs, path, directories, folder)


def _compare(directories: dict[str, Path], machine: str) -> frozenset[int]:
    """Compare a machine's copies on both hosts, while neither runs."""
    with contextlib.ExitStack() as stack:
        copies: list[RamBlock] = []
        for directory in directories.values():
            copies.append(open_ram(pid_of(directory, machine)))
            stack.callback(copies[-1].close)
        return differing_pages(*copies)
