"""From READY to RETIRED: the point of no return, and what follows from it for ever.

::

    process confirmed stopped at that pause -> RELEASED durable -> release(epoch) confirmed, or the process gone
    -> Handoff(secret), repeated until answered
             -> ACTIVE seen -> RETIRED durable -> the paused image is freed -> the new owner is told
             -> LOST seen: the destination never ran and never will; source_agent.ending takes the machine back
             -> TAKEN seen, at a higher epoch: an operator gave it to another host; RETIRED durable, and freed

After RELEASED this host never runs the machine again, except through RECLAIMED; so the hand-off is asked again as long
as it takes.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from source_agent.destination_link import DestinationLink
from source_agent.doubts import CONTRADICTION
from source_agent.insisting import may_pass, pause_before
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.errors import MigrationError, Stale, Unreachable, Unresolved
from vm_migration.handover.custody import Custody
from vm_migration.handover.departure import released
from vm_migration.handover.evidence import InstanceGone, Process, ProcessAnswer, SideView
from vm_migration.handover.ownership import retired
from vm_migration.handover.states import State
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.errors import CutOff, MachineError, MachineRefused
from vm_migration.telemetry import logs

_LONGEST_WAIT: Final = 10.0
_log: Final = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Handed:
    """What the destination answered to the secret; times are nanoseconds, `sent` and `answered` on this clock."""

    sent_ns: int
    answered_ns: int
    executed_ns: int
    boot_id: str
    activate_ns: int


async def release(custody: Custody, attempt: str, pause: int, process: ProcessAnswer | InstanceGone) -> None:
    """Give the machine up, on what its process has said at this moment: durable when this returns.

    Raises:
        Refused: The machine is not stopped at that pause; nothing was written.
        JournalUncertain: Nobody knows; neither resume nor hand off until ABORTED is durable.
    """
    ready = SideView(attempt=attempt, sight=State.READY, process=Process.ALIVE, pause=pause)
    await custody.write(lambda last: released(last, destination=ready, process=process))


async def fence_off(custody: Custody) -> None:
    """Have the process of a released machine refuse to run it, for ever; idempotent.

    The secret waits for that (ADR 0009): two lines of defence then stand before it leaves.

    Raises:
        Unreachable: The process lives and does not answer.
        Stale: A newer controller commands it.
        Unresolved: It refuses: it does not stand still.
    """
    try:
        await custody.port.release(custody.record.epoch)
    except CutOff as error:
        raise Stale("stale-controller", f"Machine process obeys a newer controller: {error}") from error
    except MachineRefused as error:
        text = f"Machine process of a released machine refuses to be fenced: {error}"
        raise Unresolved(CONTRADICTION, text, "See: viaduct doctor") from error
    except MachineError as error:
        if custody.process() is not Process.GONE:  # one that is gone runs nothing
            text = f"Machine process does not confirm its release: {error}"
            raise Unreachable("process-silent", text, "Look at it") from error


@dataclass(frozen=True, slots=True)
class Waiting:
    """How a hand-off waits: `tell` is given for what, `rest` waits for so many seconds or until somebody wants more.

    `unclear` looks at a destination that answered something else, and returns how it is seen where that ends the
    hand-off.
    """

    tell: Callable[[str], None]
    rest: Callable[[float], Awaitable[None]]
    unclear: Callable[[], Awaitable[SideView | None]]


async def hand_over(
    link: DestinationLink, key: types_pb2.AttemptKey, pause: int, secret: bytes, waiting: Waiting
) -> Handed | SideView:
    """Give the secret away until the destination answers that it is active, or is seen as LOST, or taken elsewhere."""
    tell = waiting.tell
    request = destination_pb2.HandoffRequest(key=key, pause=pause, secret=secret)
    for retry in itertools.count():
        sent_ns = loop_ns()
        heard = True
        try:
            answer = await link.handoff(request)
        except MigrationError as error:
            tell(f"waits for {link.peer} to take over: {error.message}")
            _log.warning("hand-off not answered", peer=link.peer, code=error.code, reason=error.message)
            heard = not isinstance(error, Unreachable)
        else:
            if answer.state == State.ACTIVE:
                return Handed(
                    sent_ns=sent_ns,
                    answered_ns=loop_ns(),
                    executed_ns=answer.executed_at_ns,
                    boot_id=answer.boot_id,
                    activate_ns=round(answer.activate_ms * 1e6),
                )
            if answer.state == State.LOST:
                return SideView(key.attempt, State.LOST, Process.GONE)
            tell(f"waits for {link.peer}, which says {answer.state}")
        if heard and (there := await waiting.unclear()) is not None:
            return there
        await waiting.rest(pause_before(retry))
    raise AssertionError("The count of retries has no end")


def active_at(key: types_pb2.AttemptKey) -> SideView:
    """Return how a destination is seen that has taken over."""
    return SideView(attempt=key.attempt, sight=State.ACTIVE, process=Process.ALIVE, highest_epoch=key.epoch)


async def retire(custody: Custody, owner: SideView, reason: str = "") -> None:
    """Give the image up, now that another host is seen to own the machine; idempotent.

    `reason` is journalled where that is not the end that the attempt was made for.

    Raises:
        MigrationError: The journal refused; the image stays.
    """
    gone = InstanceGone(custody.record.instance) if custody.process() is Process.GONE else None
    await custody.write(lambda record: retired(record, owner, gone=gone, reason=reason))
    await custody.take_away(kill=False)


async def told_retired(link: DestinationLink, key: types_pb2.AttemptKey, seconds: float) -> bool:
    """Tell the new owner once, so that it may begin attempts as soon as this one is shown as completed."""
    try:
        async with asyncio.timeout(seconds):
            await link.note_retired(destination_pb2.NoteRetiredRequest(key=key))
    except (MigrationError, TimeoutError) as error:
        _log.warning("new owner did not hear of the retirement at once", reason=str(error))
        return False
    return True


async def tell_retired(link: DestinationLink, key: types_pb2.AttemptKey) -> None:
    """Tell the new owner that this host has retired its copy, until it has heard: it begins no attempt before."""
    request = destination_pb2.NoteRetiredRequest(key=key)
    for retry in itertools.count():
        try:
            await link.note_retired(request)
        except MigrationError as error:
            if not may_pass(error):
                _log.warning("new owner does not want to hear", code=error.code, reason=error.message)
                return
            _log.warning("new owner did not hear of the retirement", code=error.code, reason=error.message)
        else:
            return
        await asyncio.sleep(pause_before(retry, _LONGEST_WAIT))  # nobody tells when it can be reached again
