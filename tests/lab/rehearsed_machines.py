"""A small scenario for tests of a rehearsal's parts."""

from lab.scenario import Scenario, check_scenario

SMALL: dict[str, object] = {
    "name": "small",
    "title": "A small machine",
    "machine": {
        "memory": {"size": "64MiB"},
        "guest": {"iommu": "nopt", "cpu_dirty_rate": "4MiB/s", "working_set": "4MiB"},
        "device": [{"name": "qat0", "model": "qat", "address": "00:04.0", "dma_rate": "16MiB/s"}],
    },
    "expect": {"outcome": "completed"},
}


def small_scenario(**run: object) -> Scenario:
    return check_scenario({**SMALL, "run": run}, "small")
