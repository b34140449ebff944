"""What TLS costs: `grpc` with TLS 1.3 beside itself in plaintext, and QEMU's own migration both ways as a yardstick.

All four move the same incompressible 2 GiB over loopback, in turns; throughput is from the first byte of memory to the
last acknowledgement, QEMU's from its command to its guest's start.
"""

import sys
from collections.abc import Mapping
from typing import Final

from benchmarks.beside.measures import Figure, Run, beside, completed, unfit
from benchmarks.beside.sample import Sample
from benchmarks.beside.scenarios import GRPC, PLAIN_READY, PLAINTEXT, SECURED, SECURITY
from benchmarks.beside.turns import play
from benchmarks.figures import Row

LEAST: Final = 0.6
_QEMU: Final = (SECURED[0].name, PLAIN_READY.name)
OURS_OVER_ITSELF: Final = "throughput of grpc with TLS 1.3 over grpc in plaintext"
QEMU_OVER_ITSELF: Final = "throughput of QEMU with TLS over QEMU without"
OURS_OVER_QEMU: Final = "throughput of grpc with TLS 1.3 over QEMU with TLS"
_RATIOS: Final[Mapping[str, tuple[str, str, float | None]]] = {
    OURS_OVER_ITSELF: (GRPC.name, PLAINTEXT.name, LEAST),
    QEMU_OVER_ITSELF: (*_QEMU, None),
    OURS_OVER_QEMU: (GRPC.name, SECURED[0].name, None),
}
"""Whose throughput over whose, and what it must be."""


def measure(runs: int, size: int = 0) -> list[Row]:
    """Play the scenario, in small where a size is given, and return its rows.

    Raises:
        RuntimeError: A movement did not complete, or this machine cannot measure it.
    """
    return rows_of(play(SECURITY, runs, size, _tell))


def rows_of(samples: list[Sample]) -> list[Row]:
    """Return the rows of what was played: everybody's throughput, and the ratios of the same turn.

    Raises:
        RuntimeError: Somebody's movements cannot all be compared.
    """
    run = Run({SECURITY.name: samples})
    rows = []
    for who in (PLAINTEXT.name, GRPC.name, *reversed(_QEMU)):
        said = unfit(run, SECURITY.name, who)
        if said is not None:
            raise RuntimeError(f"{who}: {said.words}")
        rates = tuple(throughput(each) / 1e9 for each in completed(samples, who).values())
        rows.append(Row(f"throughput, {who}, beside each other", "GB/s", rates))
    return rows + [_ratio(run, name) for name in _RATIOS]


def _ratio(run: Run, name: str) -> Row:
    who, other, must = _RATIOS[name]
    figure: Figure = throughput
    reading = beside(SECURITY.name, who, [other], figure, better="higher")(run)
    return Row(name, "ratio", reading.values, must=must)


def throughput(sample: Sample) -> float:
    """Return bytes a second on the wire; QEMU tells no time of its bytes alone."""
    return 1000 * sample.wire_bytes / (sample.bulk_ms or sample.total_ms)


def _tell(sample: Sample) -> None:
    sys.stderr.write(f"security {sample.turn:3} {sample.who:42} {sample.outcome} {sample.why[:200]}\n")
