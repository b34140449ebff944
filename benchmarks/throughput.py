"""RAM throughput on loopback beside iperf3: idle 2 GiB guest full of incompressible bytes, verification on.

From the first bulk frame to the last acknowledgement, with the destination's memory made ready in Prepare; Prepare and
the whole time are shown apart. Turns alternate with iperf3, so that both see the same machine.
"""

import asyncio
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks import iperf
from benchmarks.figures import Row, ratios
from benchmarks.rig import GIB, MIB, Rig, rig
from orchestrator.policy import MigrationPolicy

RAM: Final = 2 * GIB
_PIECE: Final = 64 * MIB


def write_image(path: Path, seed: int, size: int = RAM) -> None:
    """Write so many bytes, whole pieces of 64 MiB, that nothing compresses."""
    random = np.random.default_rng(seed)
    with path.open("wb") as image:
        for _ in range(0, size, _PIECE):
            image.write(random.bytes(_PIECE))


async def measure(folder: Path, runs: int) -> list[Row]:
    """Return the rows for plaintext and for mutual TLS."""
    image = folder / "incompressible.img"
    await asyncio.to_thread(write_image, image, 1)
    rows: list[Row] = []
    for insecure, must in ((True, 0.3), (False, 0.15)):
        document: dict[str, object] = {
            "name": "idle",
            "memory": {"size": RAM, "image": str(image)},
            "guest": {"cpu_dirty_rate": 0, "working_set": 64 * MIB},
        }
        async with rig(document, insecure=insecure) as site:
            rows.extend(await _turns(site, runs, must, "plaintext" if insecure else "mutual TLS"))
    image.unlink()
    return rows


async def _turns(site: Rig, runs: int, must: float, how: str) -> list[Row]:
    rates, peers, prepares, totals = [], [], [], []
    for turn in range(runs + 1):
        peer = await asyncio.to_thread(iperf.bytes_per_second)
        attempt = await site.move(MigrationPolicy())
        report = attempt.report
        if attempt.outcome != "completed" or report is None or report.pages_mismatched:
            raise RuntimeError(f"Migration ended with {attempt.outcome}: {attempt.error}")
        if turn == 0:
            continue  # the first one warms the machine's memory up
        rates.append(RAM / (report.bulk_ms / 1000))
        peers.append(peer)
        prepares.append(attempt.prepare_ms)
        totals.append(report.total_ms)
    return [
        Row(f"iperf3, one TCP stream ({how} run)", "GB/s", tuple(peer / 1e9 for peer in peers)),
        Row(f"RAM throughput, {how}", "GB/s", tuple(rate / 1e9 for rate in rates)),
        Row(f"RAM throughput over iperf3, {how}", "ratio", ratios(rates, peers), must=must),
        Row(f"prepare, {how}", "ms", tuple(prepares)),
        Row(f"total with prepare, {how}", "ms", tuple(totals)),
    ]
