"""The twenty runs on which predictions are judged: fixed before the first of them was ever measured, but for two.

Both with a network card were refused by preflight in that first run, for the card's own log of dirty pages does not
work behind a vIOMMU; they go without that log since, which was written before either had an outcome.

They vary in size, content, rate, working set, pattern, link, device and downtime limit. Runs of one link follow each
other on one site, whose hosts have moved another machine before: a site that has never moved anything can only assume.
"""

from dataclasses import dataclass
from typing import Final, Literal

from benchmarks.beside.content import Content
from benchmarks.beside.link import LinkName

_MIB: Final = 1 << 20

Pattern = Literal["uniform", "zipf", "sequential"]
Device = Literal["none", "qat", "nic", "gpu"]
_GPU_MEMORY: Final = 32 * _MIB


@dataclass(frozen=True, slots=True)
class PredictedRun:
    """One machine and one link. Sizes in MiB, rates in MiB a second; `dma` is its device's rate."""

    link: LinkName
    size: int
    content: Content
    rate: int = 0
    working_set: int = 64
    pattern: Pattern = "uniform"
    device: Device = "none"
    dma: int = 0
    limit_ms: int = 300

    @property
    def name(self) -> str:
        """All of it in words, for the table."""
        load = f"{self.rate} MiB/s {self.pattern} over {self.working_set} MiB" if self.rate else "idle"
        device = f", {self.device} {self.dma} MiB/s" if self.device != "none" else ""
        return f"{self.link}, {self.size} MiB {self.content}, {load}{device}, limit {self.limit_ms} ms"

    def specification(self, image: str) -> dict[str, object]:
        """Return the machine's document."""
        document: dict[str, object] = {
            "name": "predicted",
            "memory": {"size": self.size * _MIB, "image": image},
            "guest": {
                "cpu_dirty_rate": self.rate * _MIB,
                "working_set": self.working_set * _MIB,
                "pattern": self.pattern,
            },
        }
        if self.device != "none":
            device: dict[str, object] = {"name": "dev0", "model": self.device, "address": "00:04.0"}
            device["dma_rate"] = self.dma * _MIB
            if self.device == "gpu":
                device["local_memory"] = _GPU_MEMORY
            if self.device == "nic":  # whose own log of dirty pages, behind a vIOMMU, would block it
                device["device_dirty_tracking"] = False
            document["device"] = [device]
        return document


GRID: Final = (
    PredictedRun("loopback", 256, "booted"),
    PredictedRun("loopback", 1024, "incompressible"),
    PredictedRun("loopback", 2048, "booted"),
    PredictedRun("loopback", 512, "booted", 50, 64),
    PredictedRun("loopback", 1024, "booted", 100, 256, device="qat", dma=50),
    PredictedRun("loopback", 1024, "incompressible", 150, 256, "zipf"),
    PredictedRun("loopback", 512, "booted", 30, 200, "sequential", "nic", 20),
    PredictedRun("loopback", 1024, "mostly-zero", 20, 64, device="gpu", dma=10),
    PredictedRun("1 Gbit/s", 256, "incompressible"),
    PredictedRun("1 Gbit/s", 512, "booted"),
    PredictedRun("1 Gbit/s", 1024, "booted", 10, 64),
    PredictedRun("1 Gbit/s", 512, "incompressible", 30, 100),
    PredictedRun("1 Gbit/s", 512, "incompressible", 60, 200),
    PredictedRun("1 Gbit/s", 512, "booted", 40, 256, "zipf", limit_ms=500),
    PredictedRun("1 Gbit/s", 1024, "mostly-zero", 20, 128, "sequential", "qat", 10),
    PredictedRun("1 Gbit/s", 256, "booted", 10, 32, device="nic", dma=10, limit_ms=100),
    PredictedRun("300 Mbit/s", 256, "booted"),
    PredictedRun("300 Mbit/s", 256, "booted", 10, 64),
    PredictedRun("300 Mbit/s", 256, "incompressible", 5, 32, "sequential", limit_ms=1000),
    PredictedRun("300 Mbit/s", 512, "mostly-zero", 10, 64, "zipf", "qat", 5),
)
