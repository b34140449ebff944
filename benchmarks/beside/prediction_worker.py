"""Plays the grid's runs of one link on one site: answers a prediction beside its outcome a line.

Each machine is asked about as `viaduct preflight` does, with the dirty rate measured for a second, and then moved.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.beside import ours
from benchmarks.beside.content import MEMORY_FILES, write_content
from benchmarks.beside.link import HOSTS, make_link
from benchmarks.beside.prediction import Expectation, Prediction
from benchmarks.beside.prediction_grid import GRID, PredictedRun
from benchmarks.beside.worker import end_with_input
from orchestrator.attempt import Attempt, Outcome
from orchestrator.policy import MigrationPolicy
from orchestrator.preflight import preflight
from tests.faults.network import Network
from vm_migration.api.v1.types_pb2 import Expected
from vm_migration.errors import MigrationError
from vmm.assembly.specification import check_specification

MEASURE_MS: Final = 1000
SETTLE_SECONDS: Final = 2.0
"""A guest that was just created has not written at its rate for a whole second."""
RATE_ASSUMED: Final = "rate-assumed"
_EARLIER: Final = 2


async def play(runs: list[PredictedRun], network: Network, folder: Path) -> AsyncIterator[Prediction]:
    """Move a machine that does not count, then predict and move each of the grid."""
    (folder / "hosts").mkdir()
    most = max(run.size for run in runs) << 20
    async with ours.running_hosts(folder / "hosts", network, most, tls=True) as operator:
        for run in [runs[0]] * _EARLIER:
            await _predicted(run, operator, folder)
        for run in runs:
            yield await _predicted(run, operator, folder)


async def _predicted(run: PredictedRun, operator: Path, folder: Path) -> Prediction:
    image = folder / "image"
    await asyncio.to_thread(write_content, image, run.size << 20, run.content, 1)
    specification = check_specification(run.specification(str(image)), run.name)
    policy = MigrationPolicy(downtime_limit_ms=run.limit_ms, timeout_ms=120_000)
    async with ours.machine_on(operator, specification, tls=True) as rig:
        await asyncio.sleep(SETTLE_SECONDS)
        try:
            found = await preflight(rig.agents, await rig.look(), HOSTS[1], policy, measure_ms=MEASURE_MS)
            chosen = found.chosen
            if chosen is None or chosen.expected is None:
                return Prediction(run=run.name, completed=False, why="nothing was predicted")
            attempt = await rig.move(policy)
        except MigrationError as error:
            return Prediction(run=run.name, completed=False, why=error.message)
    assumed = RATE_ASSUMED in {notice.code for notice in chosen.warnings}
    return prediction_of(run.name, chosen.expected, attempt, assumed=assumed)


def prediction_of(name: str, expected: Expected, attempt: Attempt, *, assumed: bool) -> Prediction:
    """Return what was expected beside what an attempt came to."""
    report = attempt.report
    if attempt.outcome is not Outcome.COMPLETED or report is None:
        why = attempt.error.message if attempt.error is not None else attempt.reason
        return Prediction(run=name, completed=False, why=why)
    total = Expectation(expected.total_ms, expected.total_low_ms, expected.total_high_ms, report.total_ms)
    stood = report.downtime.downtime_ms
    return Prediction(
        run=name,
        completed=True,
        total=total,
        downtime=Expectation(expected.downtime_ms, expected.downtime_low_ms, expected.downtime_high_ms, stood),
        expected_rounds=expected.rounds,
        rounds=report.rounds_closed,
        expected_prepare_ms=expected.prepare_ms,
        prepare_ms=attempt.prepare_ms,
        assumed=assumed,
    )


async def _tell(link: str, only: int) -> None:
    runs = [run for run in GRID if run.link == link][: only or None]
    network = make_link(runs[0].link)
    try:
        with tempfile.TemporaryDirectory(prefix="vb-", dir=MEMORY_FILES) as folder:
            async for prediction in play(runs, network, Path(folder)):
                sys.stdout.write(msgspec.json.encode(prediction).decode() + "\n")
                sys.stdout.flush()
    finally:
        network.close()


def main() -> None:
    """Play what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside.prediction_worker", description=__doc__)
    parser.add_argument("link", choices=sorted({run.link for run in GRID}))
    parser.add_argument("--only", type=int, default=0, help="the first so many; 0: all")
    arguments = parser.parse_args()
    end_with_input()
    asyncio.run(_tell(arguments.link, arguments.only))


if __name__ == "__main__":
    main()
