"""From Start to READY for a machine that sends its own stream: the sibling of the rounds and of the switchover.

::

    Start --> a way is open --> the process sends --converged--> it waits at its gate: source_agent.own_stream.gate

What is sent when is the process's own affair. What this agent decides is whether it may go on from the gate, and
whether it may be released.
"""

import asyncio
from dataclasses import replace
from typing import Final

from source_agent.account import Account
from source_agent.destination_link import DestinationLink
from source_agent.expectation import ASSUMED_RATE, decided_with
from source_agent.own_stream.carriers import carrier
from source_agent.own_stream.gate import LOOK_MS, Gate, failed
from source_agent.own_stream.heartbeat import heartbeat
from source_agent.own_stream.memory import HashedMemory, hashed_memory
from source_agent.own_stream.passes import Passes
from source_agent.progress import Phase
from source_agent.pulse import UNMOVED
from source_agent.switchover import PagesDiffer, Ready
from source_agent.terms import Terms
from source_agent.throttling import SENDS, of_vcpus, while_taken
from vm_migration.errors import AttemptFailed
from vm_migration.handover.departure import forced_pause_bound_ms, pause_bound_ms
from vm_migration.loop_clock import loop_ns
from vm_migration.machine.stream_standing import Standing, at_source
from vmm.process.control import Observation
from vmm.process.own_stream import StreamState, StreamTerms

_LEAST_SHARE: Final = 0.1
"""Of the downtime limit, what sending may take however much else there is to do."""
_AT_ONCE_MS: Final = 2_000_000
"""A downtime limit under which whatever is left may be sent: QEMU's greatest."""


class StreamCourse:
    """The stream of one attempt."""

    def __init__(self, account: Account, link: DestinationLink, ticket: bytes) -> None:
        self._account: Final = account
        self._link: Final = link
        self._ticket: Final = ticket
        self._terms = account.terms
        self._forced = False
        self._changed = False
        self._throttled = 0
        """Of the vCPUs' time, in percent, what was taken when people were told last."""
        self._hashed_bytes = 0
        """Of memory, what is hashed while it stands still."""
        self._passes: Final = Passes(loop_ns())

    def tune(self, terms: Terms) -> None:
        """Work under changed terms from now on."""
        self._terms, self._changed = terms, True

    def force(self) -> None:
        """Come to the gate as soon as the process can."""
        self._forced = self._changed = True
        self._account.waiting("was forced: stops the guest as soon as its process can")

    async def run(self) -> Ready:
        """Bring the destination to READY.

        Raises:
            MigrationError, MachineError: It did not come to that; the caller ends the attempt.
            ExceptionGroup: Of those.
        """
        account, custody = self._account, self._account.custody
        memory = await hashed_memory(custody.port, verify=self._terms.verify != "none")
        self._hashed_bytes = memory.size
        if memory.why_not:
            warning = Observation(code="not-verified", message=f"Memory is not compared: {memory.why_not}")
            account.put(replace(account.now, warnings=(*account.now.warnings, warning)))
        try:
            async with (
                carrier(account, self._link, self._ticket) as carrying,
                heartbeat(self._link, account.key()),
            ):
                account.enter(Phase.PRE_COPY, SENDS)
                await carrying.begin(self._stream_terms())
                at_gate = await self._until_gate()
                return await self._through(at_gate, Gate(account, self._link, carrying, memory, self._passes))
        finally:
            memory.close()

    def _stream_terms(self) -> StreamTerms:
        terms = self._terms
        return StreamTerms(
            max_bandwidth=terms.max_bandwidth_bytes_per_s,
            downtime_limit_ms=_AT_ONCE_MS if self._forced else self._left_of_limit_ms(),
            channels=terms.streams,
            most_throttle=terms.convergence().profile.throttle_maximum,
        )

    def _left_of_limit_ms(self) -> int:
        """Return how long sending what is left may take: the limit, less what a standstill takes beside that."""
        limit, around = self._terms.downtime_limit_ms, self._account.around
        beside = decided_with(around.fixed_standstill_ms, limit) + 1000 * self._hashed_bytes / around.hash_bytes_per_s
        return max(round(limit * _LEAST_SHARE), round(limit - beside))

    async def _until_gate(self) -> StreamState:
        left = max(0.0, (self._terms.timeout_ms - self._account.elapsed_ms()) / 1000)
        forcing = asyncio.get_running_loop().call_later(left, self.force) if self._terms.force_on_timeout else None
        try:
            async with asyncio.timeout(None if forcing else left):
                return await self._watched()
        except TimeoutError:
            text = f"Migration did not converge in {self._terms.timeout_ms} ms"
            raise AttemptFailed("timeout", text, "Raise --timeout, or use --on-timeout force") from None
        finally:
            if forcing:
                forcing.cancel()

    async def _watched(self) -> StreamState:
        port, known = self._account.custody.port, ""
        while True:
            state = await port.stream(known, LOOK_MS)
            standing = at_source(state.status, state.run_status, past_gate=False)
            if standing is Standing.FAILED:
                raise failed(state)
            self._show(state)
            if standing is Standing.AT_GATE:
                return state
            if self._passes.unmoved_s > UNMOVED:
                text = f"Nothing of the machine's stream moved any more for {UNMOVED:g} s"
                raise AttemptFailed("stream-stalled", text, "Look at the link and at both machines' logs")
            if self._changed:
                self._changed = False
                await port.tune_stream(self._stream_terms())
            known = state.status

    def _show(self, state: StreamState) -> None:
        closed, now = self._passes.saw(state, loop_ns()), self._account.now
        self._account.put(
            replace(
                now,
                rounds=now.rounds if closed is None else now.rounds.closing(closed),
                percent=99 if state.passes > 1 else self._passes.percent,
                wire_bytes=state.transferred,
                raw_bytes=state.transferred,
                remaining_bytes=state.remaining,
                expected_downtime_ms=state.expected_downtime_ms,
            )
        )
        if state.throttle_percent > self._throttled and not self._forced:
            self._throttled = state.throttle_percent
            self._account.waiting(while_taken(of_vcpus(self._throttled)))

    async def _through(self, at_gate: StreamState, gate: Gate) -> Ready:
        account = self._account
        account.enter(Phase.STOPPING, "stands at its gate: the stop is written down")
        if (before := self._passes.stopped(loop_ns())) is not None:
            account.put(replace(account.now, rounds=account.now.rounds.closing(before)))
        expected_ms = 1000 * at_gate.remaining / (at_gate.bytes_per_s or ASSUMED_RATE)
        limit = self._terms.downtime_limit_ms
        bound_ms = forced_pause_bound_ms(round(expected_ms)) if self._forced else pause_bound_ms(limit)
        try:
            async with asyncio.timeout(bound_ms / 1000):
                stop = await gate.stop(bound_ms)
                account.waiting("stands at its gate: the hooks of before_handoff run")
                await account.around.before_handoff()  # the guest stands still: they have no more time than the rest
                account.waiting("sends what is left")
                ready = await gate.make_ready(stop, bound_ms)
        except TimeoutError:
            text = f"Destination was not ready within {bound_ms} ms of the pause, hooks of before_handoff included"
            raise AttemptFailed("pause-bound", text, "Raise --downtime-limit, or have the hooks do less") from None
        except PagesDiffer:
            account.put(replace(account.now, verified_by=gate.memory.verified_by))
            raise
        self._show_ready(ready, gate.memory)
        return ready

    def _show_ready(self, ready: Ready, memory: HashedMemory) -> None:
        now = self._account.now
        self._account.put(
            replace(
                now,
                rounds=now.rounds.closing(ready.last_round),
                wire_bytes=self._passes.transferred,
                raw_bytes=self._passes.transferred,
                remaining_bytes=0,
                verified_by=memory.verified_by,
                pages_verified=ready.pages_verified,
                bulk_ms=(ready.last_round_ns - self._passes.first_ns) / 1e6,
            )
        )
