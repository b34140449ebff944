"""From Start to READY at the destination: the work of an attempt that can be cancelled at any point.

::

    Start --> streams open --> rounds (precopy) --fits--> before_handoff --> the stop (switchover) --> READY

Everything here fails by an exception, and leaves what is then to be done to source_agent.outgoing_attempt.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final
from uuid import UUID

import msgspec

from source_agent.account import Account
from source_agent.destination_link import DestinationLink
from source_agent.own_stream.course import StreamCourse
from source_agent.precopy import Precopy
from source_agent.progress import Phase
from source_agent.rounds import Rounds
from source_agent.surroundings import StartOrder
from source_agent.switchover import PagesDiffer, Ready, stop_and_make_ready
from source_agent.terms import Terms, encode
from source_agent.throttling import SENDS, Throttling
from vm_migration.errors import AttemptFailed, Refused
from vm_migration.handover.departure import forced_pause_bound_ms, pause_bound_ms
from vm_migration.transfer.outgoing import OutgoingStream

_START_PATIENCE: Final = 600.0
"""Seconds for which an attempt that is forced when its time is over waits for Start: destinations prepare for long."""


class GettingReady:
    """The rounds and the stop of one attempt."""

    def __init__(self, account: Account) -> None:
        self._account: Final = account
        self._order: Final[asyncio.Future[StartOrder]] = asyncio.get_running_loop().create_future()
        self._sending: Precopy | StreamCourse | None = None

    def start(self, order: StartOrder) -> None:
        """Begin the rounds; asked again, nothing changes."""
        if not self._order.done():
            self._order.set_result(order)

    def force(self) -> None:
        """Switch over at once, whatever the standstill; asked again, nothing changes.

        Raises:
            Refused: Its rounds have not begun, or are over.
        """
        phase = self._account.now.phase
        if self._sending is None or phase is not Phase.PRE_COPY:
            text = f"Attempt {self._account.attempt} is {phase}: there is no round to end"
            hint = "Force it once its rounds have begun" if phase is Phase.BEGUN else "Wait for its end"
            raise Refused("not-in-rounds", text, hint)
        self._sending.force()

    def tune(self, terms: Terms) -> None:
        """Work under changed terms from now on."""
        if self._sending is not None:
            self._sending.tune(terms)

    def forget(self) -> None:
        """Let go of what leads to the mapping of the machine's RAM."""
        self._sending = None

    async def run(self, stack: AsyncExitStack) -> tuple[DestinationLink, Ready]:
        """Bring the destination to READY; what `stack` holds, the link among it, is open until it is closed.

        Raises:
            MigrationError, MachineError: It did not come to that; the caller ends the attempt.
        """
        account = self._account
        order = await self._ordered()
        account.put(replace(account.now, started_after_ms=account.elapsed_ms()))
        account.terms = msgspec.structs.replace(
            account.terms, control_address=order.control_address, bulk_address=order.bulk_address
        )
        policy = encode(account.terms)
        await account.custody.write(lambda record: msgspec.structs.replace(record, policy=policy))
        machine = account.custody.port
        link = await stack.enter_async_context(account.link())
        if (await machine.describe()).moves == "stream":
            self._sending = StreamCourse(account, link, order.ticket)
            return link, await self._sending.run()
        ram = await machine.ram()
        stack.callback(ram.close)
        count = account.terms.streams
        async with link.streams(order.ticket, count) as bulks:
            streams = [OutgoingStream(UUID(account.attempt), ordinal) for ordinal in range(count)]
            lanes = tuple(zip(streams, bulks, strict=True))
            rounds = Rounds(
                machine,
                ram,
                link,
                lanes,
                account.key(),
                verify=account.terms.verify,
                compression=account.terms.compression,
            )
            asking = asyncio.create_task(_ask_features(link, rounds), name="features of the destination")
            try:
                return link, await self._through(link, rounds)
            finally:
                asking.cancel()

    async def _through(self, link: DestinationLink, rounds: Rounds) -> Ready:
        account = self._account
        throttling = Throttling(account.custody)
        self._sending = precopy = Precopy(
            rounds,
            account.custody,
            account.board,
            account.terms,
            account.around.hash_bytes_per_s,
            throttling=throttling,
            fixed_standstill_ms=account.around.fixed_standstill_ms,
            device_bytes_per_s=account.around.device_bytes_per_s,
        )
        account.enter(Phase.PRE_COPY, SENDS)
        holding = asyncio.create_task(throttling.hold_on(), name="throttle")
        try:
            standstill_ms, forced = await precopy.run(account.elapsed_ms)
            return await self._stop(link, rounds, standstill_ms, forced=forced)
        finally:
            holding.cancel()

    async def _ordered(self) -> StartOrder:
        terms = self._account.terms
        patience = terms.timeout_ms / 1000
        if terms.force_on_timeout:  # its time may be over while the destination prepares: it is forced then, not ended
            patience = max(patience, _START_PATIENCE)
        try:
            async with asyncio.timeout(patience):
                return await self._order
        except TimeoutError:
            raise AttemptFailed("timeout", "Attempt was begun and never started", "Begin a new one") from None

    async def _stop(self, link: DestinationLink, rounds: Rounds, standstill_ms: float, *, forced: bool) -> Ready:
        account = self._account
        account.waiting("runs the hooks of before_handoff")
        await account.around.before_handoff()
        account.enter(Phase.STOPPING, "stops the guest and sends what is left")
        limit = account.terms.downtime_limit_ms
        bound_ms = forced_pause_bound_ms(round(standstill_ms)) if forced else pause_bound_ms(limit)
        try:
            async with asyncio.timeout(bound_ms / 1000):
                stop = await account.custody.port.pause(for_attempt=True)
                ready = await stop_and_make_ready(
                    account.custody,
                    link,
                    rounds,
                    account.key(),
                    stop,
                    bound_ms=bound_ms,
                    verify=account.terms.verify != "none",
                    verifying=self._verifying,
                )
        except TimeoutError:
            text = f"Destination was not ready within {bound_ms} ms of the pause"
            raise AttemptFailed("pause-bound", text, "Raise --downtime-limit") from None
        except PagesDiffer:
            account.put(replace(account.now, verified_by=rounds.verified_by))
            raise
        self._show_ready(rounds, ready)
        return ready

    def _verifying(self) -> None:
        self._account.enter(Phase.VERIFYING, "waits until the destination has verified")

    def _show_ready(self, rounds: Rounds, ready: Ready) -> None:
        now = self._account.now
        self._account.put(
            replace(
                now,
                rounds=now.rounds.closing(ready.last_round),
                wire_bytes=rounds.wire_bytes,
                raw_bytes=rounds.raw_bytes,
                compression=rounds.compression,
                bases_looked_up=rounds.remembered.looked_up,
                bases_found=rounds.remembered.found,
                remaining_bytes=0,
                device_bytes=rounds.devices.total.data_bytes,
                device_bytes_stopped=rounds.devices.total.data_bytes - now.device_bytes,
                device_left_bytes=0,
                verified_by=rounds.verified_by,
                pages_verified=ready.pages_verified,
                bulk_ms=(rounds.bulk_ended_ns - rounds.bulk_started_ns) / 1e6,
            )
        )


async def _ask_features(link: DestinationLink, rounds: Rounds) -> None:
    """Learn, beside the rounds, what the destination offers: nobody waits for it."""
    features = await link.features()
    rounds.offered.learn(features)
