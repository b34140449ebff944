"""From the decision to stop to READY at the destination: everything that can still be taken back.

::

    pause: vCPUs, then devices -> STOPPED(pause) durable -> last harvest, last pages -> devices' state to its end
         -> the machine's own state saved -> digests of what no witness vouches for -> destination loads and verifies
         -> READY(pause) -> the machine's process confirms that it stands still at that pause

What is hashed at the pause is counted as verification, and reading, sending and loading state as device state.

Nothing here releases the machine. Whatever fails is raised, and the attempt ends in ABORTED at its owner's hands.
"""

from collections.abc import Callable
from dataclasses import dataclass

from source_agent.destination_link import DestinationLink
from source_agent.rounds import Rounds
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.errors import AttemptFailed
from vm_migration.handover.custody import Custody
from vm_migration.handover.departure import stopped
from vm_migration.handover.evidence import InstanceGone, ProcessAnswer
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.port import Stop
from vm_migration.transfer.convergence import RoundMeasurement


@dataclass(frozen=True, slots=True)
class Ready:
    """The destination holds the whole machine, verified, and does not run it. Times are monotonic nanoseconds."""

    stop: Stop
    process: ProcessAnswer | InstanceGone
    """What the source's own process said after that, on which it may be released."""
    paused_ns: int
    last_round: RoundMeasurement
    last_round_ns: int
    device_state_ns: int
    verified_ns: int
    pages_verified: int


class PagesDiffer(AttemptFailed):
    """Verification found pages whose contents differ; the destination never runs."""

    def __init__(self, answer: destination_pb2.FinishResponse) -> None:
        pages = tuple(answer.mismatched_pages)
        named = ", ".join(str(page) for page in pages[:8]) + (" ..." if len(pages) > 8 else "")
        super().__init__(
            "pages-mismatched",
            f"Verification found {answer.pages_mismatched} pages that differ at the destination: {named}",
            "The machine goes on at its source; report this with the attempt's record",
        )
        self.verified = answer.pages_verified
        self.mismatched_count = answer.pages_mismatched
        self.mismatched = pages


def require_ready(answer: destination_pb2.FinishResponse, stop: Stop) -> None:
    """Check that a destination holds the whole machine of a stop, verified.

    Raises:
        PagesDiffer: Verification refused it.
        AttemptFailed: It is not ready.
    """
    if answer.pages_mismatched:
        raise PagesDiffer(answer)
    if not answer.ready or answer.pause != stop.pause:
        raise AttemptFailed(
            answer.error.code or "not-ready",
            f"Destination did not become ready: {answer.error.message or 'no reason given'}",
            answer.error.hint,
        )


async def stop_and_make_ready(
    custody: Custody,
    link: DestinationLink,
    rounds: Rounds,
    key: types_pb2.AttemptKey,
    stop: Stop,
    *,
    bound_ms: int,
    verify: bool,
    verifying: Callable[[], None],
) -> Ready:
    """Bring a machine that has just stopped to READY at the destination; `verifying` is called once all pages are sent.

    Raises:
        PagesDiffer: Verification refused it.
        MigrationError, MachineError: It did not come to READY; the caller aborts.
    """
    await custody.write(lambda record: stopped(record, pause=stop.pause, bound_ms=bound_ms))
    paused_ns = loop_ns()
    last_round = await rounds.send_last()
    last_round_ns = rounds.pages_applied_ns
    state = await custody.port.save()
    saved_ns = loop_ns()
    verifying()
    await rounds.send_digests()
    total = rounds.devices.total
    request = destination_pb2.FinishRequest(
        key=key,
        pause=stop.pause,
        round=rounds.number,
        machine_state=state,
        device_data=destination_pb2.DeviceTotal(
            records=total.records, data_bytes=total.data_bytes, checksum=total.checksum
        ),
        was_running=custody.record.was_running,  # a guest that an attempt stopped no longer tells
        verify=verify,
    )
    answer = await link.finish(request, bound_ms / 1000)
    verified_ns = loop_ns()
    require_ready(answer, stop)
    return Ready(
        stop=stop,
        process=await custody.answer_or_proof(),
        paused_ns=paused_ns,
        last_round=last_round,
        last_round_ns=last_round_ns,
        device_state_ns=min(verified_ns, saved_ns + round(answer.load_ms * 1e6)),
        verified_ns=verified_ns,
        pages_verified=answer.pages_verified,
    )
