"""Holding an attempt at a boundary: with the site's own hooks, and by freezing whoever would take the next step.

::

    boundary       the journals say           held by
    queued         OWNER / nothing            another machine's attempt to the same host, at its before_prepare
    preflight      OWNER / nothing            the destination agent, frozen when the row appears
    beginning      OWNER, or OUTGOING         the source agent, frozen when the row says so
    preparing      OUTGOING / nothing         before_prepare
    prepared       OUTGOING / PREPARED        nobody: the destination's processes start
    begun          OUTGOING / PREPARED        the source agent, frozen before it is told to start
    pre-copy       OUTGOING / PREPARED        nobody: a narrow link
    stopping       STOPPED / PREPARED         the destination agent, frozen at before_handoff
    verifying      STOPPED / PREPARED, whole  before_ready
    ready          STOPPED / READY            the source's machine process, frozen at before_ready
    releasing      RELEASED / READY           then the destination agent, frozen too
    handing-over   RELEASED / ACTIVATING      the destination's machine process, frozen at READY
    active         RELEASED / ACTIVE          the source agent, frozen while the secret is on its way
    completed      RETIRED / ACTIVE           after_active

What a hold has frozen goes on once the fault has struck. What the journals really say then is read, and what may follow
is judged by that.
"""

import asyncio
from collections.abc import Awaitable, Callable

from orchestrator.attempt import Phase
from tests.faults.rows import When
from tests.faults.trial import DESTINATION, PATIENCE, SOURCE, Missed, Trial
from vm_migration.api.v1 import types_pb2
from vm_migration.handover.states import State

NARROW = 12 << 20
"""Bytes a second at which the first round of a trial's machine takes seconds."""
NARROW_FOR_QEMU = 4 << 20
"""The same of one whose memory is empty for the most part, which takes no time."""
_GATE_OF = {
    When.PREPARING: "before_prepare",
    When.STOPPING: "before_handoff",
    When.VERIFYING: "before_ready",
    When.READY: "before_ready",
    When.RELEASING: "before_ready",
    When.HANDING_OVER: "before_ready",
    When.ACTIVE: "before_ready",
    When.COMPLETED: "after_active",
}


def get_ready(trial: Trial, when: When | float) -> None:
    """Do what must be done before the order is given."""
    if when is When.PRE_COPY:
        trial.bandwidth = NARROW_FOR_QEMU if trial.row.qemu else NARROW
    elif not isinstance(when, When):
        trial.bandwidth = 2 * NARROW
    elif when in _GATE_OF:
        trial.site.arm(_GATE_OF[when])


async def hold(trial: Trial, when: When | float) -> None:
    """Wait until a machine's move is at a boundary, and keep it there.

    Raises:
        Missed: It did not come there, or went on.
    """
    if isinstance(when, When):
        await _HOLDS[when](trial)
    else:
        await asyncio.sleep(when)  # the moment itself is what is asked for


async def _queued(trial: Trial) -> None:
    await trial.until(lambda: _phase(trial) is Phase.QUEUED, "a row in the queue")


async def _preflight(trial: Trial) -> None:
    await trial.until(lambda: _phase(trial) is not None, "a row")
    trial.freeze(trial.site.dest(DESTINATION).pid)
    await trial.until(lambda: _phase(trial) is not Phase.QUEUED, "the preflight")


async def beginning(trial: Trial) -> None:
    """Freeze the source agent when the row says that it is to open the attempt."""
    await trial.until(lambda: _phase(trial) not in (None, Phase.QUEUED, Phase.PREFLIGHT), "the beginning")
    trial.freeze(trial.site.source(SOURCE).pid)


async def _preparing(trial: Trial) -> None:
    await _gate(trial, "before_prepare")


async def _prepared(trial: Trial) -> None:
    await trial.until(lambda: trial.state(DESTINATION) == State.PREPARED, "PREPARED")


async def _begun(trial: Trial) -> None:
    await _prepared(trial)
    trial.freeze(trial.site.source(SOURCE).pid)

    def answered() -> bool:
        row = trial.row_of_it()
        return row is not None and row.prepare_ms > 0

    await trial.until(answered, "the end of the preparations")


async def _pre_copy(trial: Trial) -> None:
    await trial.until(lambda: _phase(trial) is Phase.PRE_COPY, "pre-copy")
    await source_says(trial, "pre-copy", percent=20)


async def _stopping(trial: Trial) -> None:
    await _gate(trial, "before_handoff")
    trial.freeze(trial.site.dest(DESTINATION).pid)
    trial.site.open_gate("before_handoff")
    await trial.until(lambda: trial.state(SOURCE) == State.STOPPED, "STOPPED")


async def _verifying(trial: Trial) -> None:
    await _gate(trial, "before_ready")


async def _ready(trial: Trial) -> None:
    await _gate(trial, "before_ready")
    trial.freeze(trial.beside(SOURCE))
    trial.site.open_gate("before_ready")
    await trial.until(lambda: trial.state(DESTINATION) == State.READY, "READY")


async def _releasing(trial: Trial) -> None:
    await _ready(trial)
    await _finish_answered(trial)
    trial.freeze(trial.site.dest(DESTINATION).pid)
    trial.thaw(trial.beside(SOURCE))
    await trial.until(lambda: trial.state(SOURCE) == State.RELEASED, "RELEASED")


async def _handing_over(trial: Trial) -> None:
    await _ready(trial)
    trial.freeze(trial.beside(DESTINATION))
    trial.thaw(trial.beside(SOURCE))
    await trial.until(lambda: trial.state(DESTINATION) == State.ACTIVATING, "ACTIVATING")


async def _active(trial: Trial) -> None:
    await _releasing(trial)
    await source_says(trial, "handing-over")
    source, destination = trial.site.source(SOURCE).pid, trial.site.dest(DESTINATION).pid
    trial.freeze(source)
    trial.thaw(destination)
    await trial.until(lambda: trial.state(DESTINATION) == State.ACTIVE, "ACTIVE")


async def _completed(trial: Trial) -> None:
    await _gate(trial, "after_active")
    await trial.until(lambda: trial.state(SOURCE) == State.RETIRED, "RETIRED")
    await trial.until(lambda: _phase(trial) is Phase.COMPLETED, "the end")


async def _gate(trial: Trial, gate: str) -> None:
    await trial.until(lambda: trial.site.reached(gate), gate)


async def _finish_answered(trial: Trial) -> None:
    """Wait until the destination has said that it is READY, which it does right after it is durable.

    What it is asked now it answers after that.
    """
    key = types_pb2.AttemptKey(machine=trial.machine, attempt=trial.attempt)
    async with trial.site.agents() as agents:
        for _ in range(2):
            await agents.describe_incoming(DESTINATION, key)


async def source_says(trial: Trial, phase: str, percent: int = 0) -> None:
    """Wait until the source reports a phase: a row is not written at every percent."""
    key = types_pb2.AttemptKey(machine=trial.machine, attempt=trial.attempt)
    seen = None
    try:
        async with asyncio.timeout(PATIENCE), trial.site.agents() as agents:
            while seen is None or seen.phase != phase or seen.percent < percent:
                seen = await agents.get_attempt(SOURCE, key)
                if seen.outcome:
                    raise Missed(f"{phase} did not come: {seen.outcome} ({seen.error.message})")
    except TimeoutError:
        raise Missed(f"{phase} did not come within {PATIENCE:.0f} s") from None


def _phase(trial: Trial) -> Phase | None:
    row = trial.row_of_it()
    return None if row is None else row.phase


_HOLDS: dict[When, Callable[[Trial], Awaitable[None]]] = {
    When.QUEUED: _queued,
    When.PREFLIGHT: _preflight,
    When.BEGINNING: beginning,
    When.PREPARING: _preparing,
    When.PREPARED: _prepared,
    When.BEGUN: _begun,
    When.PRE_COPY: _pre_copy,
    When.STOPPING: _stopping,
    When.VERIFYING: _verifying,
    When.READY: _ready,
    When.RELEASING: _releasing,
    When.HANDING_OVER: _handing_over,
    When.ACTIVE: _active,
    When.COMPLETED: _completed,
}
