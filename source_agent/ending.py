"""How an attempt ends that does not complete.

::

    before RELEASED   process alive   ABORTED durable, then the guest resumes
                      process gone    OUTGOING: LOST      STOPPED: what the destination's journal allows
    after RELEASED    only where the destination is LOST: RECLAIMED, then the guest resumes

ABORTED is durable before the guest resumes and before the destination is told to discard. Each step is idempotent, and
repeated until it succeeds: a process that is silent now may answer later, and its guest must not stay stopped.

A process that lives and is silent does not hold up ABORTED while the journal says OUTGOING: a guest that was not
stopped durably is resumed whenever its process answers again. In STOPPED only its own answer allows ABORTED.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Final

from source_agent.destination_link import DestinationLink
from source_agent.doubts import CONTRADICTION
from source_agent.insisting import may_pass, pause_before
from source_agent.looking import look
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.errors import MigrationError, Stale, Unreachable, Unresolved
from vm_migration.handover.custody import Custody
from vm_migration.handover.departure import aborted, lost, reclaimed, released
from vm_migration.handover.evidence import InstanceGone, Process, ProcessAnswer, SideView, view
from vm_migration.handover.ownership import run_confirmed
from vm_migration.handover.record import Record, encode
from vm_migration.handover.recovery import Action, decide
from vm_migration.handover.states import State
from vm_migration.handover.succession import update_of, waits_in_files
from vm_migration.machine.errors import CutOff, MachineRefused
from vm_migration.machine.port import MachinePort
from vm_migration.machine.succession import Consoled
from vm_migration.telemetry import logs
from vmm.guest.console import GuestAction

PROMPT: Final = 0.3
"""Seconds in which a machine's process that is not frozen has answered."""
_LONGEST_WAIT: Final = 10.0
_log: Final = logs.get(__name__)


LinkTo = Callable[[], DestinationLink]


async def settle(custody: Custody, link: LinkTo | None, key: types_pb2.AttemptKey, reason: str) -> State:
    """Bring an attempt that failed to the end that both journals and both processes allow; return it, durable.

    ABORTED: the machine is to become as it was (`bring_to_owed`). LOST: nobody has it whole. RELEASED: the only whole
    copy is the destination's, which is owed the secret. `link` opens a link to the destination; None where it was never
    named.

    Raises:
        Unreachable: The process stands STOPPED, lives and does not answer, or its end was not seen before and an update
            has the machine elsewhere: nothing was written.
        Unresolved: The destination may hold the only whole copy, and cannot be asked now.
        Stale: The journal must be opened anew.
    """
    state = custody.record.state
    if state not in (State.OUTGOING, State.STOPPED):
        return state
    process = await _seen(custody)
    if not isinstance(process, InstanceGone):
        await custody.write(lambda last: aborted(last, reason=reason, process=process))
        return State.ABORTED
    if custody.uncertain:  # only its journal opened anew, as after a restart, tells which record stands
        raise Stale("journal-uncertain", "What was written last may stand or not, and the machine's process is gone")
    if state is State.STOPPED and link is not None:
        async with link() as opened:
            return await _settle_with_destination(custody, process, opened, key)
    # Whoever has it now decides, as it is seen now.
    if state is State.STOPPED and update_of(custody.record) is not None:
        raise Unreachable("machine-gone", f"The process of machine {custody.record.machine} has just ended")
    return await lose(custody, process, None, reason)


async def _seen(custody: Custody) -> ProcessAnswer | InstanceGone | None:
    """Return what is known of the process; None for one that lives, is silent, and need not answer."""
    if custody.record.state is not State.OUTGOING:
        return await custody.answer_or_proof()
    try:
        async with asyncio.timeout(PROMPT):
            return await custody.answer_or_proof()
    except TimeoutError:
        silent = Unreachable("process-silent", "Machine process does not answer at once", "Look at it")
    except Unreachable as error:
        silent = error
    if custody.process() is Process.ALIVE:
        return None
    raise silent


async def take_back(custody: Custody) -> State:
    """Own a released machine again, whose destination is LOST; return RECLAIMED, or LOST where it is gone here too.

    Raises:
        Unreachable: The process lives and does not answer.
        MachineError: RECLAIMED is durable, and the machine not confirmed to be as it was.
    """
    there = SideView(custody.record.attempt or "", State.LOST, Process.GONE)
    process = await custody.answer_or_proof()
    if isinstance(process, InstanceGone):
        return await lose(custody, process, there, "The destination lost its image, and the source's is gone")
    await custody.write(lambda last: reclaimed(last, destination=there, process=process))
    await resume_as_owed(custody)
    return State.RECLAIMED


async def resume_as_owed(custody: Custody) -> None:
    """Bring devices and vCPUs to the run state that is owed, tracking off; idempotent.

    Raises:
        MachineError: The machine is not confirmed to be as it was; Begin is refused until it is.
    """
    record, port = custody.record, custody.port
    if record.was_running:
        await port.run(record.owned_epoch)
        await _wake_guest(record, port)
    elif (await custody.answer()).running:  # somebody asked for a pause, and it did not come to it
        await port.pause(for_attempt=False)
    else:
        await port.stay_paused(record.owned_epoch)
    await port.stop_tracking()
    answer = await custody.answer()
    await custody.write(lambda last: run_confirmed(last, answer))


async def _wake_guest(record: Record, port: MachinePort) -> None:
    """Wake a guest that was suspended for an update which did not come; one that is awake does not notice.

    Where it was left in files already, to be told to run has woken it. What its guest answers decides nothing: the
    machine runs, and one whose console refuses is told again by a person. One that sleeps takes down nothing but to
    wake, so that where it has not done all that it was told, it was told that before.

    Raises:
        MachineError: Its process does not answer, or somebody else commands it.
    """
    update = update_of(record)
    if record.state is not State.ABORTED or update is None or update.mode != "reboot" or not isinstance(port, Consoled):
        return
    if (await port.describe()).guest.busy_actions:
        return
    try:
        await port.guest_command(GuestAction.WAKE)
    except CutOff:
        raise
    except MachineRefused as error:
        hint = "viaduct machine wake NAME"
        _log.warning("guest could not be told to wake", machine=record.machine, reason=str(error), hint=hint)


async def bring_to_owed(custody: Custody) -> Record:
    """Bring a machine that this host owns to the run state it owes; one that died after an attempt is LOST.

    Raises:
        Unreachable, MachineError: It is not confirmed to be as it is owed. One that may wait in files is not LOST for
            that its process is gone: who can see them decides (source_agent.updating.waking).
    """
    record = custody.record
    if not record.owns:
        return record
    process = await custody.answer_or_proof()
    if not isinstance(process, InstanceGone):
        await resume_as_owed(custody)
    elif waits_in_files(record) and not record.run_confirmed:
        raise Unreachable("machine-gone", f"The process of machine {record.machine} ended, and it may wait in files")
    elif custody.record.state in (State.ABORTED, State.RECLAIMED):
        await lose(custody, process, None, "The machine's process ended")
    return custody.record


async def tell_to_discard(link: DestinationLink, key: types_pb2.AttemptKey, custody: Custody) -> None:
    """Prove to the destination that the attempt ended here, until it has heard: it keeps a whole image until then."""
    for retry in itertools.count():
        try:
            await link.discard(_proof(key, custody))
        except MigrationError as error:
            if not may_pass(error):
                _log.warning("destination has nothing to discard", code=error.code, reason=error.message)
                return
            _log.warning("destination did not hear of the end", code=error.code, reason=error.message)
        else:
            return
        await asyncio.sleep(pause_before(retry, _LONGEST_WAIT))  # nobody tells when it can be reached again


async def _settle_with_destination(
    custody: Custody, gone: InstanceGone, link: DestinationLink, key: types_pb2.AttemptKey
) -> State:
    """Decide for a machine that had stopped when its process went: a whole copy may be at the destination."""
    here = view(custody.record, key.attempt, key.epoch, Process.GONE)
    there = await look(link, key)
    decision = decide(here, there, past_deadline=True, over_pause_bound=True)
    if Action.RELEASE_SOURCE in decision.actions:
        await custody.write(lambda last: released(last, destination=there, process=gone))
        return State.RELEASED
    if decision.actions == (Action.LOSE_SOURCE,):
        return await lose(custody, gone, there, decision.reason)
    if {Action.FINISH_OR_GIVE_UP, Action.LOSE_DESTINATION} & set(decision.actions):
        await link.discard(_proof(key, custody))  # no proof of an end: the destination settles its own side with it
    code = CONTRADICTION if Action.PAGE in decision.actions else "ownership-open"
    raise Unresolved(code, f"{decision.reason} ({there.sight} at {custody.record.peer})")


async def lose(custody: Custody, gone: InstanceGone, destination: SideView | None, reason: str) -> State:
    """Write that nobody has the machine whole, and free what is left of it; return LOST.

    Raises:
        Refused: The destination may have it.
    """
    await custody.write(lambda last: lost(last, process=gone, destination=destination, reason=reason))
    await custody.take_away(kill=True)  # its folder counts against the host's memory, and its name is taken
    return State.LOST


def _proof(key: types_pb2.AttemptKey, custody: Custody) -> destination_pb2.DiscardRequest:
    record = custody.record
    return destination_pb2.DiscardRequest(
        key=key, proof_state=record.state, proof_record=encode(record.public()).decode()
    )
