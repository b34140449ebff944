"""Touching an incoming machine's RAM before any byte arrives."""

import os
from concurrent.futures import ThreadPoolExecutor

from vmm.memory.ram_block import RamBlock


def populate(block: RamBlock, first: int, count: int) -> None:
    """Make a run of pages present, on as many threads as there are processors.

    First touch of a page is the kernel's work, during which the interpreter is free: threads scale.

    Raises:
        MemoryError: The run leaves the block, or the host has no memory left; what was touched stays touched.
    """
    if first < 0 or count <= 0 or first + count > block.pages:
        raise MemoryError(f"Pages {first} to {first + count} are not within the block's {block.pages}")
    workers = min(os.cpu_count() or 1, 8)
    share = -(-count // workers)
    runs = [(first + start, min(share, count - start)) for start in range(0, count, share)]
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(block.populate, *run) for run in runs]:
            done.result()
