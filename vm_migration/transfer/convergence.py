"""When to stop the guest: a pure decision over what the rounds so far have measured.

::

    cancelled                                                     -> Fail(cancelled)
    forced, or time over where it forces; all is acknowledged     -> SwitchOver
    the attempt's time is over                                    -> Fail(timeout)
    a device's initial data is not acknowledged                   -> Continue
    the standstill expected now fits, and pages are little of it  -> SwitchOver
    it fits the limit, and what is left no longer shrinks by 1/5  -> SwitchOver, unless the rate has just dropped
    it fits, has stalled, and is near the least that was left     -> SwitchOver, unless the rate has just dropped
    otherwise                                                     -> Continue, throttled as the profile says

It fits the limit where it does so by a tenth: the last round is small, and a small one is slower than those before it.
While what is left shrinks, rounds go on until its pages take no more than a third of the standstill: such a round takes
less time than the limit, and a standstill of which pages are little is much the same whenever the guest is stopped, so
that it can be foretold. Where devices' state is most of it, little is gained by smaller rounds, which tell less of the
link.

The rate is the lower of the last sampled round's and the median of the last three; a short burst promises nothing,
and a drop counts at once. After a drop, what is left grows because the round took longer, not because the guest's
dirtying has reached its floor; stopping then would freeze the guest in the link's worst moment. A round whose pages
shrank less than those before it has moved fewer pages a second, and is no drop: the wire was as fast. A drop is over
when the rounds since, however small each, ran faster together. A bandwidth that the user lowered counts before a round
has measured it: the last round is held to it too.

A stall (vm_migration.transfer.stall) never makes more than the limit acceptable. Where nothing fits, each of its
windows is the moment for another step of the throttle (vm_migration.transfer.throttle), unless the rate has just
dropped.

A device's initial data is what its destination prepares itself with while the guest runs. A switchover before it is
acknowledged would put those preparations into the standstill, and is refused even to force (semantics 7.7, 8.3). A
machine that stands still already has no device in pre-copy, and waits for none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Final

from vm_migration.transfer.profiles import BALANCED, Profile
from vm_migration.transfer.stall import StallWatch
from vm_migration.transfer.throttle import Dirtied, Throttle, stepped
from vmm.memory.quantities import PAGE_SIZE

SHRINKS_BY: Final = 0.2
"""The least share by which another round must make the remainder smaller to be worth it."""
MARGIN: Final = 0.1
"""The share by which a standstill may become longer than expected, and must still fit the limit."""
_LITTLE: Final = 0.5
"""What the last pages may take without another round being worth it, as a share of the rest of a standstill."""
FIXED_STANDSTILL_MS: Final = 50.0
"""Pausing, five journal writes, handing over, resuming: what a standstill takes beside its work, until it is known."""
DEVICE_BYTES_PER_S: Final = 200e6
"""How fast a device's state is read, sent and loaded where the link is faster, until it is known."""
_SAMPLE_BYTES: Final = 4 << 20
_SAMPLE_MS: Final = 100.0
_RECENT: Final = 256
"""Rounds that are looked at: an attempt of ten minutes may have tens of thousands, and each decides anew."""
_DROP: Final = 0.5
_NO_STALL: Final = StallWatch()


class OnTimeout(StrEnum):
    """What the end of the attempt's time means."""

    CANCEL = "cancel"
    FORCE = "force"


@dataclass(frozen=True, slots=True)
class ConvergencePolicy:
    """What the user allows; times in milliseconds."""

    downtime_limit_ms: float
    timeout_ms: float
    on_timeout: OnTimeout = OnTimeout.CANCEL
    profile: Profile = BALANCED
    max_bandwidth_bytes_per_s: int = 0
    """What the link may be used for; 0: whatever it carries."""


@dataclass(frozen=True, slots=True)
class RoundMeasurement:
    """One closed round: what it moved, and what the guest had dirtied by its end."""

    round: int
    dirty_pages: int
    """Pages of the round's bitmap."""
    sent_pages: int
    zero_pages: int
    wire_bytes: int
    ms: float
    """From the harvest that opened it to the acknowledgement of its last barrier."""
    dirtied_pages: int
    """Pages of the harvest that followed it: dirtied while it ran."""
    unsent_pages: int = 0
    """Pages beside those that it announced and did not send, because it was cut."""
    cpu_dirtied_pages: int = 0
    """Of the dirtied pages, those that the vCPUs' log names; a page may be in both."""
    dma_dirtied_pages: int = 0
    """Those that the devices' trackers name."""
    compressed_pages: int = 0
    """Of the sent pages, those that travelled compressed, as a delta, or as a reference; the rest went as they are."""
    delta_pages: int = 0
    reference_pages: int = 0
    held_back_pages: int = 0
    """Pages that were dirty again before their turn, and were left for a later round."""
    throttle_percent: int = 0
    """Of the vCPUs' time, what was taken from them while the round ran."""
    device_throttle_percent: int = 0
    """The same of the devices."""
    sending_ms: float = 0.0
    """Of `ms`, from the first frame to the last acknowledgement, less what was waited for devices to be read. The rest
    is the same however much is moved, and says nothing of the link. 0: nobody measured it, and all of it counts."""

    @property
    def moving_ms(self) -> float:
        """For how long the link was at work."""
        return self.sending_ms or self.ms

    @property
    def wire_bytes_per_s(self) -> float:
        """What the link carried over the whole round."""
        return self.wire_bytes * 1000 / self.ms if self.ms > 0 else 0.0

    @property
    def wire_bytes_per_s_at_work(self) -> float:
        """What the link carried while it was at work."""
        return self.wire_bytes * 1000 / self.moving_ms if self.moving_ms > 0 else 0.0

    @property
    def carried_bytes(self) -> int:
        """Bytes of pages that came across, which are more than those of the wire where pages were compressed."""
        return max(self.wire_bytes, self.sent_pages * PAGE_SIZE) if self.compressed_pages else self.wire_bytes

    @property
    def carried_bytes_per_s(self) -> float:
        """At what rate pages came across: what a standstill may expect, for what is left is counted in pages."""
        return self.carried_bytes * 1000 / self.moving_ms if self.moving_ms > 0 else 0.0

    @property
    def dirty_bytes_per_s(self) -> float:
        """What guest and devices dirtied: distinct pages x 4 KiB."""
        return self.dirtied_pages * PAGE_SIZE * 1000 / self.ms if self.ms > 0 else 0.0

    @property
    def is_sample(self) -> bool:
        """Whether the round was large or long enough to say something about the link."""
        return self.carried_bytes >= _SAMPLE_BYTES or self.moving_ms >= _SAMPLE_MS


@dataclass(frozen=True, slots=True)
class StandstillCosts:
    """What a standstill takes beside moving pages."""

    fixed_ms: float
    """Pausing, the last harvest, journals, handing over, resuming."""
    device_state_bytes: int
    """What a stop would leave to be moved of the devices' state."""
    hash_bytes_per_s: float
    """How fast both ends together hash what was not hashed before; they work at the same time."""
    device_bytes_per_s: float = math.inf
    """How fast the devices' state is read, sent and loaded, where the link is faster than that."""

    def standstill_ms(self, page_bytes: float, unhashed_bytes: float, rate_bytes_per_s: float) -> float:
        """Return how long the guest stands still, in milliseconds.

        Args:
            page_bytes: What is left to send.
            unhashed_bytes: What must be hashed at the pause beside what is sent: everything without a witness, only
                what it saw written with one, nothing without verification.
            rate_bytes_per_s: What the link carries; 0 makes the answer infinite.
        """
        if rate_bytes_per_s <= 0:
            return float("inf")
        hashing = unhashed_bytes * 1000 / self.hash_bytes_per_s if unhashed_bytes else 0.0
        state = self.device_state_bytes * 1000 / min(rate_bytes_per_s, self.device_bytes_per_s)
        return self.fixed_ms + page_bytes * 1000 / rate_bytes_per_s + state + hashing


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known between two rounds."""

    history: Sequence[RoundMeasurement]
    """The last rounds that closed, oldest first, of many at least 256; what the last leaves is what is left now."""
    unhashed_bytes: int
    elapsed_ms: float
    """Since the attempt began."""
    forced: bool = False
    cancelled: bool = False
    unacknowledged: tuple[str, ...] = ()
    """Devices whose initial data the destination has not acknowledged."""
    stalls: StallWatch = _NO_STALL
    """What is known of stalls at this boundary."""
    throttle_percent: int | None = None
    """What is taken from the vCPUs' time now; None where the machine cannot be throttled."""
    device_throttle_percent: int | None = None
    """The same of the devices; None where none of them can be held."""


@dataclass(frozen=True, slots=True)
class Continue:
    """Send another round, with so much of the vCPUs' and of the devices' time taken from them."""

    standstill_ms: float
    throttle_percent: int = 0
    device_throttle_percent: int = 0


@dataclass(frozen=True, slots=True)
class SwitchOver:
    """Stop the guest now; `forced` when the standstill may be over the limit."""

    standstill_ms: float
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Fail:
    """Abort the attempt; the code is the contract's."""

    code: str
    message: str


Decision = Continue | SwitchOver | Fail


def decide(situation: Situation, policy: ConvergencePolicy, costs: StandstillCosts) -> Decision:
    """Return what to do next; the table in this module's docstring, from top to bottom."""
    expected_ms = expected_standstill_ms(situation, costs, policy.max_bandwidth_bytes_per_s)
    floor_ms = _standstill_of(0, situation, costs, policy.max_bandwidth_bytes_per_s) if situation.history else 0.0
    held = Throttle(situation.throttle_percent, situation.device_throttle_percent)
    if situation.cancelled:
        return Fail("cancelled", "Migration was cancelled")
    over_time = situation.elapsed_ms >= policy.timeout_ms
    forced = situation.forced or (over_time and policy.on_timeout is OnTimeout.FORCE)
    if forced and not situation.unacknowledged:
        return SwitchOver(expected_ms, forced=True)
    if over_time:
        return Fail("timeout", _timeout_message(situation, policy, expected_ms))
    history = situation.history
    if situation.unacknowledged or not history:
        return _continued(expected_ms, held)
    dropped = rate_dropped(history)
    worth_another = shrinks(history[-1].dirty_pages, history[-1].dirtied_pages) and not situation.stalls.near_minimum
    if is_time(expected_ms, floor_ms, policy.downtime_limit_ms, shrinking=worth_another or dropped):
        return SwitchOver(expected_ms)
    fits = fits_limit(expected_ms, policy.downtime_limit_ms)
    stays = fits or dropped or not situation.stalls.presses
    return _continued(expected_ms, held if stays else stepped(held, _dirtied(situation, policy, costs), policy.profile))


def _continued(expected_ms: float, throttle: Throttle) -> Continue:
    return Continue(expected_ms, throttle.vcpus or 0, throttle.devices or 0)


def _dirtied(situation: Situation, policy: ConvergencePolicy, costs: StandstillCosts) -> Dirtied:
    """Return what the last round left, and whether what devices wrote of it is what exceeds the limit."""
    last = situation.history[-1]

    def fit(pages: int) -> bool:
        standstill_ms = _standstill_of(pages, situation, costs, policy.max_bandwidth_bytes_per_s)
        return fits_limit(standstill_ms, policy.downtime_limit_ms)

    by_devices = last.dma_dirtied_pages
    return Dirtied(last.dirtied_pages, by_devices, devices_exceed=fit(0) and not fit(by_devices))


def shrinks(sent: float, left: float) -> bool:
    """Return whether the remainder fell by enough, and to more than nothing, so that another round gains something."""
    return 0 < left <= (1 - SHRINKS_BY) * sent


def is_time(standstill_ms: float, floor_ms: float, limit_ms: float, *, shrinking: bool) -> bool:
    """Return whether a standstill is worth taking now, given whether the next one would be shorter.

    Args:
        standstill_ms: What it would take now.
        floor_ms: What it would take if no page were left.
        limit_ms: What it may take.
        shrinking: Whether another round would leave less.
    """
    return fits_limit(standstill_ms, limit_ms) and (not shrinking or is_little(standstill_ms - floor_ms, floor_ms))


def is_little(pages_ms: float, floor_ms: float) -> bool:
    """Return whether no round is worth it for the time that the last pages take, beside what takes `floor_ms`."""
    return pages_ms <= floor_ms * _LITTLE


def fits_limit(standstill_ms: float, limit_ms: float) -> bool:
    """Return whether a standstill that is expected keeps within the limit, with the margin."""
    return standstill_ms * (1 + MARGIN) <= limit_ms


def expected_standstill_ms(situation: Situation, costs: StandstillCosts, max_bandwidth_bytes_per_s: int = 0) -> float:
    """Return how long the guest would stand still if it were stopped now; infinite before the first round."""
    if not situation.history:
        return float("inf")
    last = situation.history[-1]
    return _standstill_of(last.dirtied_pages + last.unsent_pages, situation, costs, max_bandwidth_bytes_per_s)


def _standstill_of(pages: int, situation: Situation, costs: StandstillCosts, max_bandwidth_bytes_per_s: int) -> float:
    last, rate = situation.history[-1], trusted_rate(situation.history)
    if max_bandwidth_bytes_per_s:
        compression = last.carried_bytes / last.wire_bytes if last.wire_bytes else 1.0
        rate = min(rate, max_bandwidth_bytes_per_s * compression)
    return costs.standstill_ms(pages * PAGE_SIZE, situation.unhashed_bytes, rate)


def trusted_rate(history: Sequence[RoundMeasurement]) -> float:
    """Return the rate in bytes per second that a standstill may count on; 0 when nothing was measured.

    Rounds too small and too short to measure the link are left out, unless there are no others. Many of them that ran
    faster than the last sample show that what slowed it down has passed.
    """
    rates = _sampled_rates(history)
    return max(min(rates[-1], median(rates[-3:])), _rate_since_sample(history)) if rates else 0.0


def rate_dropped(history: Sequence[RoundMeasurement]) -> bool:
    """Return whether the last sampled round ran at less than half the rate of those before it."""
    wire = [measured.wire_bytes_per_s_at_work for measured in _samples(history)]
    return _dropped(_sampled_rates(history)) and _dropped(wire)


def _dropped(rates: Sequence[float]) -> bool:
    return len(rates) > 1 and rates[-1] < _DROP * median(rates[-4:-1])


def _sampled_rates(history: Sequence[RoundMeasurement]) -> list[float]:
    return [measured.carried_bytes_per_s for measured in _samples(history)]


def _samples(history: Sequence[RoundMeasurement]) -> list[RoundMeasurement]:
    recent = history[-_RECENT:]
    samples = [measured for measured in recent if measured.is_sample]
    return [measured for measured in samples or recent if measured.carried_bytes_per_s > 0]


def _rate_since_sample(history: Sequence[RoundMeasurement]) -> float:
    """Return the rate of all rounds since the last sample, where they are one together; 0 where they are not."""
    recent = history[-_RECENT:]
    last = max((at for at, measured in enumerate(recent) if measured.is_sample), default=-1)
    since = recent[last + 1 :]
    carried, ms = sum(measured.carried_bytes for measured in since), sum(measured.moving_ms for measured in since)
    enough = ms > 0 and (carried >= _SAMPLE_BYTES or ms >= _SAMPLE_MS)
    return carried * 1000 / ms if enough else 0.0


def _timeout_message(situation: Situation, policy: ConvergencePolicy, expected_ms: float) -> str:
    still = "unknown" if expected_ms == float("inf") else f"{expected_ms:.0f} ms"
    waiting = f"; initial data of {', '.join(situation.unacknowledged)} is missing" if situation.unacknowledged else ""
    closed = situation.history[-1].round + 1 if situation.history else 0
    return (
        f"Migration did not converge in {policy.timeout_ms:.0f} ms and {closed} rounds: "
        f"the standstill expected is {still}, the limit {policy.downtime_limit_ms:.0f} ms{waiting}"
    )
