"""A machine that is to wait in its files: asleep before its update is ordered, its RAM in a file that anybody can read.

While it sleeps nothing writes to RAM: no vCPU runs, and its devices are disabled. So what lay there when it fell asleep
lies there, byte by byte, until somebody wakes it; and from then on wherever its guest does not write.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.faults.expected import Moment
from tests.faults.expected_updates import Stage, stage_of
from tests.faults.trial import SOURCE, Trial
from tests.system.forgetful import differing_pages
from vmm.assembly.specification import MachineSpecification
from vmm.guest.driver_needs import needs_of
from vmm.guest.layout import TABLES_BASE, TABLES_SIZE, plan
from vmm.memory.quantities import PAGE_SIZE

_COPY = ".asleep"
"""Beside RAM: what it was when its guest fell asleep."""


def written_by_its_guest(wanted: MachineSpecification) -> Sequence[range]:
    """Return the pages of RAM to which a guest writes: its IOMMU's tables, its devices' areas, and its working set."""
    needs = needs_of([(each.model, each.dma_rate) for each in wanted.device])
    layout = plan(wanted.memory.size, needs, wanted.guest.working_set)
    first = layout.devices[0].rings if layout.devices else layout.generations
    after = layout.working_set // PAGE_SIZE + layout.working_pages
    tables = range(TABLES_BASE // PAGE_SIZE, (TABLES_BASE + TABLES_SIZE) // PAGE_SIZE)
    return (tables, range(first // PAGE_SIZE, after))


async def fall_asleep(trial: Trial) -> None:
    """Have the machine's guest suspend, and keep what RAM is then."""
    async with trial.site.agents() as agents:
        await agents.act_on_machine(SOURCE, trial.machine, "suspend")
    shutil.copyfile(trial.ram, _copy_of(trial))


async def woken_by_hand(trial: Trial) -> None:
    """Wake a guest whose update never began: nobody else does."""
    record = trial.record(SOURCE)
    if record is not None and record.attempt is None:
        async with trial.site.agents() as agents:
            await agents.act_on_machine(SOURCE, trial.machine, "wake")


def sleeps(moment: Moment) -> bool:
    """Tell whether nothing can have run since the guest fell asleep."""
    return moment.waits or stage_of(moment) < Stage.STOPPED


def changed_while_it_slept(trial: Trial) -> int:
    """Return how many pages of RAM are not what they were; nobody may have woken the guest."""
    return len(differing_pages(_copy_of(trial), trial.ram))


def changed_where_nobody_writes(trial: Trial) -> int:
    """Return how many pages are not what they were, of those to which the guest does not write when it is awake."""
    written = written_by_its_guest(trial.wanted)
    found = differing_pages(_copy_of(trial), trial.ram)
    return sum(not any(page in pages for pages in written) for page in found)


def taken_away(trial: Trial) -> Sequence[str]:
    """Take away all that lies beside RAM's file, and that one; return what should not have, in words."""
    found = []
    for path in sorted(trial.ram.parent.glob(f"{trial.ram.name}*")):
        if path not in (trial.ram, _copy_of(trial)):
            found.append(f"file {path.name}")
        path.unlink()
    return found


def _copy_of(trial: Trial) -> Path:
    return trial.ram.with_name(trial.ram.name + _COPY)
