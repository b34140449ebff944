"""From the gate to READY: what source_agent.switchover is to rounds, for a machine that sends its own stream.

::

    pause counted -> STOPPED(pause) durable, a cancel heard -> hooks -> the process goes on; its memory is hashed beside
    -> sent, every connection over -> destination whole, its memory the same, READY(pause)
    -> the process says once more that all was sent, and that it stands still at that pause

The guest stands still from before the gate on. A process whose stream fails past it runs its guest again by itself,
before ABORTED is durable: it cannot be released any more then, for that takes its own word, given after READY came.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from source_agent.account import Account
from source_agent.destination_link import DestinationLink
from source_agent.own_stream.carriers import Carrier
from source_agent.own_stream.memory import HashedMemory
from source_agent.own_stream.passes import Passes
from source_agent.progress import Phase
from source_agent.switchover import Ready, require_ready
from vm_migration.api.v1 import destination_pb2
from vm_migration.errors import AttemptFailed
from vm_migration.handover.departure import stopped
from vm_migration.handover.evidence import InstanceGone, ProcessAnswer
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.port import Stop
from vm_migration.machine.stream_standing import Standing, at_source
from vmm.process.own_stream import StreamState

LOOK_MS: Final = 100
"""For which the process may wait with its answer until there is news; a cancel waits as long."""


def failed(state: StreamState) -> AttemptFailed:
    """Return what an attempt fails with whose machine's stream came to something else than was meant."""
    why = f": {state.error}" if state.error else ""
    text = f"The machine's own stream came to {state.status} ({state.run_status}){why}"
    return AttemptFailed("stream-failed", text, "The machine goes on at its source; look at both machines' logs")


@dataclass(frozen=True, slots=True)
class Gate:
    """One attempt's way through it."""

    account: Account
    link: DestinationLink
    carrier: Carrier
    memory: HashedMemory
    passes: Passes

    async def stop(self, bound_ms: int) -> Stop:
        """Count the stop at which the process stands, and have it durable; what takes time comes after this."""
        custody = self.account.custody
        stop = await custody.port.pause(for_attempt=True)
        await custody.write(lambda record: stopped(record, pause=stop.pause, bound_ms=bound_ms))
        return stop

    async def make_ready(self, stop: Stop, bound_ms: int) -> Ready:
        """Go on, and bring the destination to READY.

        Raises:
            PagesDiffer: Verification refused it.
            MigrationError, MachineError: It did not come to READY; the caller aborts.
        """
        account, paused_ns = self.account, loop_ns()
        hashing = asyncio.create_task(self.memory.digests(), name="digests of a machine's memory")
        try:
            await account.custody.port.continue_stream(bound_ms)  # this attempt ends it before that
            sent = await self._sent()
            await self.carrier.drained()
            last_round_ns = loop_ns()
            last_round = self.passes.saw(sent, last_round_ns) or self.passes.closed(last_round_ns)
            account.enter(Phase.VERIFYING, "waits until the destination has verified")
            digests = await hashing
        finally:
            hashing.cancel()
        request = destination_pb2.FinishRequest(
            key=account.key(),
            pause=stop.pause,
            was_running=account.custody.record.was_running,
            verify=digests is not None,
            spans=digests,
        )
        answer = await self.link.finish(request, bound_ms / 1000)
        verified_ns = loop_ns()
        require_ready(answer, stop)
        return Ready(
            stop=stop,
            process=await self._confirmed(),
            paused_ns=paused_ns,
            last_round=last_round,
            last_round_ns=last_round_ns,
            device_state_ns=min(verified_ns, last_round_ns + round(answer.load_ms * 1e6)),
            verified_ns=verified_ns,
            pages_verified=answer.pages_verified,
        )

    async def _sent(self) -> StreamState:
        known = ""
        while True:
            state = await self.account.custody.port.stream(known, LOOK_MS)
            standing = at_source(state.status, state.run_status, past_gate=True)
            if standing is Standing.SENT:
                return state
            if standing is Standing.FAILED:
                raise failed(state)
            known = state.status

    async def _confirmed(self) -> ProcessAnswer | InstanceGone:
        """Ask the process again, now that READY has come: only what it says now counts."""
        custody = self.account.custody
        process = await custody.answer_or_proof()
        if not isinstance(process, InstanceGone):
            state = await custody.port.stream("", 0)
            if at_source(state.status, state.run_status, past_gate=True) is not Standing.SENT:
                raise failed(state)
        return process
