"""How fast this host hashes pages, which is what a standstill without a witness costs."""

from collections.abc import Callable

import numpy as np

from vm_migration.transfer.digests import digests_of_rows

_PAGES = 4096


def measure_hashing(clock: Callable[[], float]) -> float:
    """Return bytes per second of hashing 16 MiB once it is in no cache that matters; `clock` counts seconds."""
    rows = np.arange(_PAGES * 512, dtype=np.uint64).reshape(_PAGES, 512)
    started = clock()
    digests_of_rows(rows)
    return rows.nbytes / max(clock() - started, 1e-6)
