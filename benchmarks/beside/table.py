"""The table of the comparison, row by row: what each must reach, what it aims at, and where it is read."""

from typing import Final, Literal

from benchmarks.beside.measures import (
    NONE,
    Measure,
    agent_mib,
    beside,
    bytes_per_s,
    cpu_per_gib,
    downtime,
    own,
    predicted,
    share_within,
    total,
    whole,
)
from benchmarks.beside.prediction_grid import GRID
from benchmarks.beside.scenarios import (
    DIRECT,
    DIRECT_UNCOMPRESSED,
    GRPC,
    IPERF,
    MULTIFD_2,
    MULTIFD_4,
    PLAIN,
    PLAIN_READY,
    SEALED,
    SECURED,
    UNCOMPRESSED,
    UNVERIFIED,
)

_READY: Final = (PLAIN_READY.name, MULTIFD_2.name, MULTIFD_4.name)
_SECURED: Final = tuple(mode.name for mode in SECURED)
_FIRST: Final = "2 GiB incompressible, idle, loopback, no TLS: total time"
_BOOTED: Final = "2 GiB as a booted system's RAM, idle, 1 Gbit/s: total time"
_BUSY: Final = "1 GiB, 60 MiB/s over 200 MiB, 1 Gbit/s, limit 300 ms"
_TLS: Final = "the first with TLS on both"
_BOTH_MEMORIES: Final = ("memory-1", "memory-8")
_BEST: Final = "QEMU's best of plain, multifd 2 and 4, destination preallocated"
_BETTER: Final = "QEMU's better of plain and multifd"

FIGURES: Final[tuple[Literal["total", "downtime"], ...]] = ("total", "downtime")
WORDS: Final = {"total": "total time", "downtime": "downtime"}

MEASURES: Final = (
    Measure(
        f"{_FIRST}, Prepare counted, `grpc`", "QEMU plain, as a user starts it", 0.5, 0.35,
        beside("loopback", GRPC.name, [PLAIN.name], whole, total),
    ),
    Measure(f"{_FIRST}, `grpc`", _BEST, 2.2, 1.6, beside("loopback", GRPC.name, _READY, total)),
    Measure(f"{_FIRST}, `direct`", _BEST, 1.2, 0.8, beside("loopback", DIRECT.name, _READY, total)),
    Measure(
        "bytes per second, `grpc`", IPERF, 0.4, 0.55,
        beside("loopback", GRPC.name, [IPERF], bytes_per_s, better="higher"), better="higher",
    ),
    Measure(
        "bytes per second, `direct`", IPERF, 0.8, 1.2,
        beside("loopback", DIRECT.name, [IPERF], bytes_per_s, better="higher"), better="higher",
    ),
    Measure(f"{_TLS}, `direct`", _BETTER, 1.0, 0.6, beside("loopback-tls", DIRECT.name, _SECURED, total)),
    Measure(f"{_TLS}, `sealed`", _BETTER, 1.0, 0.6, beside("loopback-tls", SEALED.name, _SECURED, total)),
    Measure(f"{_BOOTED}, `grpc`", _BETTER, 0.6, 0.35, beside("gigabit-booted", GRPC.name, _READY, total)),
    Measure(f"{_BOOTED}, `direct`", _BETTER, 0.6, 0.35, beside("gigabit-booted", DIRECT.name, _READY, total)),
    Measure(f"{_BOOTED}, `sealed`", _BETTER, 0.6, 0.35, beside("gigabit-booted", SEALED.name, _READY, total)),
    Measure(f"{_BUSY}: total time, `grpc`", _BETTER, 0.8, 0.5, beside("gigabit-busy", GRPC.name, _READY, total)),
    Measure(f"{_BUSY}: total time, `direct`", _BETTER, 0.8, 0.5, beside("gigabit-busy", DIRECT.name, _READY, total)),
    Measure(
        "its downtime, `grpc`: share of runs within the limit", "its limit", 1.0, 1.0,
        share_within("gigabit-busy", GRPC.name, 300.0), unit="of runs", better="higher",
    ),
    Measure("its downtime, `grpc`", _BETTER, NONE, 0.5, beside("gigabit-busy", GRPC.name, _READY, downtime)),
    Measure(
        "CPU seconds per GiB sent, both ends, `grpc`", "QEMU plain", 1.5, 1.0,
        beside("loopback", GRPC.name, [PLAIN.name], cpu_per_gib),
    ),
    Measure(
        "CPU seconds per GiB sent, both ends, `direct`", "QEMU plain", 1.0, 0.6,
        beside("loopback", DIRECT.name, [PLAIN.name], cpu_per_gib),
    ),
    Measure(
        "anonymous memory of an agent at 1 and 8 GiB, `grpc`", "-", 150, 80,
        own(_BOTH_MEMORIES, GRPC.name, agent_mib), unit="MiB", worst=True,
    ),
    Measure(
        "anonymous memory of an agent at 1 and 8 GiB, `direct`", "-", 150, 80,
        own(_BOTH_MEMORIES, DIRECT.name, agent_mib), unit="MiB", worst=True,
    ),
    Measure(
        "verification on against off: total time", "itself", 1.15, 1.05,
        beside("loopback", GRPC.name, [UNVERIFIED.name], total),
    ),
    *(
        Measure(
            f"compression auto against none, {words}: total time", "itself", 1.05, 1.0,
            beside(name, ours.name, [without.name], total),
        )
        for name, ours, without, words in (
            ("loopback", GRPC, UNCOMPRESSED, "incompressible, loopback, `grpc`"),
            ("loopback", DIRECT, DIRECT_UNCOMPRESSED, "incompressible, loopback, `direct`"),
            ("gigabit-booted", GRPC, UNCOMPRESSED, "booted, 1 Gbit/s, `grpc`"),
            ("gigabit-busy", GRPC, UNCOMPRESSED, "busy, 1 Gbit/s, `grpc`"),
        )
    ),
    *(
        measure
        for figure in FIGURES
        for measure in (
            Measure(
                f"prediction of {WORDS[figure]}, 20 varied runs: within 25 %", "the outcome", 16, 16,
                predicted(figure, 0.25, len(GRID)), unit="runs", better="higher",
            ),
            Measure(
                f"prediction of {WORDS[figure]}, 20 varied runs: within 15 %", "the outcome", NONE, 18,
                predicted(figure, 0.15, len(GRID)), unit="runs", better="higher",
            ),
        )
    ),
)  # fmt: skip
