"""The rounds of an attempt until the stop, against a guest and a link that are arithmetic, in virtual time."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from source_agent.pacing import Pacer
from source_agent.precopy import Precopy
from source_agent.progress import Progress, ProgressBoard
from source_agent.rounds import Rounds
from source_agent.terms import Terms
from source_agent.throttling import Throttling
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.virtual_time import in_virtual_time
from vm_migration.errors import AttemptFailed
from vm_migration.handover.custody import Custody
from vm_migration.handover.evidence import Process
from vm_migration.transfer.convergence import RoundMeasurement
from vmm.memory.quantities import PAGE_SIZE
from vmm.process.control import THROTTLE_SECONDS, GuestFigures, ThrottledDevices

MB = 1_000_000
GBIT, FIFTY_MBIT = 118 * MB, 6 * MB
CARD = ThrottledDevices(percent=0, slowed=("nic0",), at_full_speed=())
TERMS = Terms(downtime_limit_ms=300, timeout_ms=600_000, force_on_timeout=False)


@dataclass
class Model:
    """A guest that dirties at a rate, and a link whose rate is a function of time; both are looked at every 10 ms.

    Stands for the rounds, the custody, and the machine's port.
    """

    ram: int
    cpu_rate: float
    dma_rate: float
    span: int
    link: Callable[[float], float]
    device_left: int = 0
    throttleable: bool = True
    holds: ThrottledDevices | None = None
    """What the machine's process says of its devices, but for the percentage."""
    exact: bool = True
    percent: int = 0
    until: float = 0.0
    asked: list[int] = field(default_factory=list)
    device_percent: int = 0
    devices_until: float = 0.0
    asked_of_devices: list[int] = field(default_factory=list)
    closed: list[RoundMeasurement] = field(default_factory=list)
    dirty: float = 0.0
    number: int = -1

    def __post_init__(self) -> None:
        self.pacer = Pacer()
        self.counts = SimpleNamespace(pages=0, sent_pages=0, zero_pages=0)
        self.devices = SimpleNamespace(
            left_bytes=self.device_left, unacknowledged=(), total=SimpleNamespace(data_bytes=0)
        )
        self.unhashed_bytes, self.wire_bytes, self.raw_bytes, self.compression = 0, 0, 0, "none"
        self.remembered = SimpleNamespace(looked_up=0, found=0)
        self.dirty = self.ram
        self.port = self
        self.begun = asyncio.get_running_loop().time()

    @property
    def elapsed(self) -> float:
        return asyncio.get_running_loop().time() - self.begun

    @property
    def dirty_pages(self) -> int:
        return int(self.dirty) // PAGE_SIZE

    def limit(self, bytes_per_second: int) -> None:
        self.pacer.bytes_per_second = bytes_per_second

    def cut(self) -> None:
        pass

    async def begin(self) -> None:
        pass

    def process(self) -> Process:
        return Process.ALIVE

    async def throttle(self, percent: int) -> None:
        self.asked.append(percent)
        self.percent, self.until = percent, self.elapsed + THROTTLE_SECONDS

    async def throttle_devices(self, percent: int) -> None:
        self.asked_of_devices.append(percent)
        self.device_percent, self.devices_until = percent, self.elapsed + THROTTLE_SECONDS

    @property
    def devices_held(self) -> int:
        return self.device_percent if self.elapsed < self.devices_until else 0

    async def describe(self) -> SimpleNamespace:
        held = self.percent if self.elapsed < self.until else 0
        devices = None if self.holds is None else msgspec.structs.replace(self.holds, percent=self.devices_held)
        figures = GuestFigures(errors=0, jobs_done=0, dirty_bytes_per_s=0.0, dma_bytes_per_s=0.0)
        return SimpleNamespace(
            guest=figures,
            throttle_percent=held if self.throttleable else None,
            device_throttle=devices,
            tracking=SimpleNamespace(exact=self.exact),
        )

    def _carried(self, seconds: float) -> float:
        most = self.pacer.bytes_per_second
        rate = self.link(self.elapsed)
        return (min(rate, most) if most else rate) * seconds

    async def send_round(self) -> RoundMeasurement:
        self.number += 1
        begun, left, cpu, dma = self.elapsed, self.dirty, 0.0, 0.0
        pages = int(left) // PAGE_SIZE
        while True:
            await asyncio.sleep(0.01)  # virtual: a step of the model
            held = self.percent if self.elapsed < self.until else 0
            cpu += self.cpu_rate * (1 - held / 100) * 0.01
            dma += self.dma_rate * (1 - self.devices_held / 100) * 0.01
            left -= self._carried(0.01)
            if left <= 0:
                break
        ms = (self.elapsed - begun) * 1000
        self.dirty = min(self.span, cpu + dma)
        share = self.dirty / (cpu + dma) if cpu + dma else 0.0
        self.wire_bytes += pages * PAGE_SIZE
        measured = RoundMeasurement(
            round=self.number, dirty_pages=pages, sent_pages=pages, zero_pages=0, wire_bytes=pages * PAGE_SIZE, ms=ms,
            dirtied_pages=self.dirty_pages, cpu_dirtied_pages=int(cpu * share) // PAGE_SIZE,
            dma_dirtied_pages=int(dma * share) // PAGE_SIZE,
        )  # fmt: skip
        self.closed.append(measured)
        return measured


@dataclass
class Outcome:
    model: Model
    standstill_ms: float | None
    """None where its time was over first."""
    seconds: float
    throttled: list[int]
    """What each round said was taken."""
    held: list[int]
    """The same of the devices."""
    reason: str
    """What was shown last."""


def migrated(
    *, terms: Terms = TERMS, tune: tuple[float, Terms] | None = None, ram: int = 1 << 30, cpu_rate: float = 0.0,
    dma_rate: float = 0.0, span: int = 200 << 20, link: Callable[[float], float] = lambda _: GBIT,
    device_left: int = 0, throttleable: bool = True, holds: ThrottledDevices | None = None, exact: bool = True,
) -> Outcome:  # fmt: skip
    async def scenario(_loop: VirtualLoop) -> Outcome:
        model = Model(
            ram, cpu_rate, dma_rate, span, link,
            device_left=device_left, throttleable=throttleable, holds=holds, exact=exact,
        )  # fmt: skip
        board, custody = ProgressBoard(Progress()), cast("Custody", model)
        throttling = Throttling(custody)
        holding = asyncio.create_task(throttling.hold_on())
        precopy = Precopy(cast("Rounds", model), custody, board, terms, 1e9, throttling=throttling)
        if tune is not None:
            asyncio.get_running_loop().call_later(tune[0], precopy.tune, tune[1])
        standstill: float | None = None
        try:
            standstill, _ = await precopy.run(lambda: model.elapsed * 1000)
        except AttemptFailed as error:
            assert error.code == "timeout"  # noqa: PT017 - every other one is raised
        holding.cancel()
        return Outcome(
            model,
            standstill,
            model.elapsed,
            [measured.throttle_percent for measured in board.progress.rounds.recent],
            [measured.device_throttle_percent for measured in board.progress.rounds.recent],
            board.progress.reason,
        )

    return in_virtual_time(scenario)


def under(profile: str, *, timeout_ms: int = TERMS.timeout_ms) -> Terms:
    return msgspec.structs.replace(TERMS, profile=profile, timeout_ms=timeout_ms)


def test_a_guest_that_the_link_outruns_is_moved_unthrottled_under_every_profile() -> None:
    outcomes = [migrated(terms=under(profile), cpu_rate=60 * MB) for profile in ("gentle", "balanced", "urgent")]
    for outcome in outcomes:
        assert outcome.standstill_ms is not None
        assert outcome.standstill_ms <= 300
        assert outcome.model.asked == []
        assert outcome.seconds == outcomes[0].seconds


def test_a_guest_that_outruns_the_link_is_throttled_until_it_fits() -> None:
    outcome = migrated(terms=under("urgent"), cpu_rate=300 * MB)
    assert outcome.standstill_ms is not None
    assert outcome.standstill_ms <= 300
    steps = list(dict.fromkeys(outcome.model.asked))
    assert steps == [20, 30, 40, 50, 60, 70, 80, 90][: len(steps)]
    assert outcome.seconds < 300
    assert outcome.throttled[0] == 0
    assert outcome.throttled == sorted(outcome.throttled)
    assert outcome.throttled[-1] == steps[-1]


def test_what_was_taken_is_asked_for_again_for_as_long_as_the_rounds_last() -> None:
    """A round of minutes must not give the guest its speed back half-way."""
    outcome = migrated(terms=under("urgent"), cpu_rate=60 * MB, link=lambda at: GBIT / 8, ram=1 << 28)
    assert outcome.model.asked
    first = outcome.model.closed[outcome.throttled.index(20)]
    assert first.ms > THROTTLE_SECONDS * 1000


@pytest.mark.parametrize("profile", ["gentle", "balanced"])
def test_a_guest_far_too_fast_is_never_throttled_beyond_its_profile(profile: str) -> None:
    outcome = migrated(terms=under(profile), cpu_rate=900 * MB)
    assert outcome.standstill_ms is None
    assert max(outcome.model.asked, default=0) == {"gentle": 0, "balanced": 50}[profile]


def test_vcpus_are_left_alone_where_it_is_a_device_that_outruns_the_link() -> None:
    outcome = migrated(terms=under("urgent"), cpu_rate=5 * MB, dma_rate=300 * MB)
    assert outcome.standstill_ms is None
    assert outcome.model.asked == []


def test_a_device_that_outruns_the_link_is_held_under_urgent_until_it_fits() -> None:
    outcome = migrated(terms=under("urgent"), cpu_rate=5 * MB, dma_rate=300 * MB, holds=CARD)
    assert outcome.standstill_ms is not None
    assert outcome.standstill_ms <= 300
    steps = list(dict.fromkeys(outcome.model.asked_of_devices))
    assert steps == [20, 30, 40, 50, 60, 70, 80][: len(steps)]
    assert outcome.model.asked == [], "vCPUs that write next to nothing keep their time"
    assert outcome.held[0] == 0
    assert outcome.held == sorted(outcome.held)
    assert outcome.held[-1] == steps[-1]
    assert f"{steps[-1]} % of the time of nic0 taken: it does not converge" in outcome.reason


def test_a_device_is_held_for_as_long_as_the_rounds_last() -> None:
    outcome = migrated(terms=under("urgent"), dma_rate=60 * MB, link=lambda at: GBIT / 8, ram=1 << 28, holds=CARD)
    first = outcome.model.closed[outcome.held.index(20)]
    assert first.ms > THROTTLE_SECONDS * 1000


@pytest.mark.parametrize("profile", ["gentle", "balanced"])
def test_no_other_profile_holds_a_device(profile: str) -> None:
    outcome = migrated(terms=under(profile, timeout_ms=120_000), cpu_rate=5 * MB, dma_rate=300 * MB, holds=CARD)
    assert outcome.standstill_ms is None
    assert outcome.model.asked_of_devices == []


def test_a_device_whose_writes_fit_is_not_held_while_vcpus_outrun_the_link() -> None:
    outcome = migrated(terms=under("urgent"), cpu_rate=300 * MB, dma_rate=20 * MB, holds=CARD)
    assert outcome.standstill_ms is not None
    assert outcome.model.asked
    assert outcome.model.asked_of_devices == []


@pytest.mark.parametrize(
    ("holds", "exact"),
    [(None, True), (ThrottledDevices(percent=0, slowed=(), at_full_speed=("nic0",)), True), (CARD, False)],
    ids=["a process of before", "no P2P states", "a tracker that reports all that is mapped"],
)
def test_devices_that_cannot_be_held_are_not_asked_and_named(holds: ThrottledDevices | None, *, exact: bool) -> None:
    terms = under("urgent", timeout_ms=60_000)
    outcome = migrated(terms=terms, cpu_rate=5 * MB, dma_rate=300 * MB, holds=holds, exact=exact)
    assert outcome.standstill_ms is None
    assert outcome.model.asked_of_devices == []
    assert ("nic0 cannot be held" in outcome.reason) is (holds is not None)


def test_a_device_that_cannot_be_held_is_named_beside_one_that_is() -> None:
    holds = ThrottledDevices(percent=0, slowed=("nic0",), at_full_speed=("qat0",))
    outcome = migrated(terms=under("urgent"), cpu_rate=5 * MB, dma_rate=300 * MB, holds=holds)
    assert "of the time of nic0 taken: it does not converge, and qat0 cannot be held" in outcome.reason


def test_a_machine_whose_process_cannot_throttle_is_not_asked_to() -> None:
    outcome = migrated(terms=under("urgent"), cpu_rate=300 * MB, throttleable=False)
    assert outcome.standstill_ms is None
    assert outcome.model.asked == []


@pytest.mark.parametrize("profile", ["gentle", "balanced", "urgent"])
@pytest.mark.parametrize("recovers", [True, False])
def test_a_drop_of_the_network_in_the_middle_of_a_round_triggers_no_switchover(profile: str, recovers: bool) -> None:
    """1 Gbit/s falls to 50 Mbit/s two seconds before the first round would have ended."""
    drop, back = 7.0, 60.0

    def link(at: float) -> float:
        return FIFTY_MBIT if at >= drop and not (recovers and at >= back) else GBIT

    outcome = migrated(terms=under(profile), cpu_rate=60 * MB, link=link)
    if recovers:
        assert outcome.standstill_ms is not None
        assert outcome.seconds > back
    if outcome.standstill_ms is not None:
        assert outcome.standstill_ms <= 300
        assert outcome.model.dirty / link(outcome.seconds) <= 0.3


def test_the_state_of_devices_that_only_a_stop_lets_move_holds_the_switchover_up() -> None:
    terms = msgspec.structs.replace(TERMS, timeout_ms=20_000)
    fits, does_not = (migrated(terms=terms, cpu_rate=1 * MB, device_left=size) for size in (10 * MB, 60 * MB))
    assert fits.standstill_ms is not None
    assert fits.standstill_ms >= 10 * MB / GBIT * 1000
    assert does_not.standstill_ms is None


def test_a_bandwidth_that_is_tuned_down_counts_before_a_round_has_measured_it() -> None:
    """The only round so far ran at 118 MB/s nearly to its end; the last, with the guest stopped, would run at 2."""
    slow = msgspec.structs.replace(TERMS, max_bandwidth_bytes_per_s=2 * MB, timeout_ms=60_000)
    untuned = migrated(cpu_rate=1 * MB)
    assert untuned.standstill_ms is not None
    tuned = migrated(cpu_rate=1 * MB, tune=(untuned.seconds - 0.02, slow))
    assert tuned.standstill_ms is not None
    assert tuned.seconds > untuned.seconds + 1
    assert tuned.model.dirty / (2 * MB) <= 0.3


def test_what_is_not_answered_in_time_is_not_taken_for_a_guest_that_does_not_converge() -> None:
    class Unanswered(Model):
        async def begin(self) -> None:
            raise TimeoutError(110, "Connection timed out")

    async def scenario(_loop: VirtualLoop) -> None:
        model = Unanswered(1 << 30, 0.0, 0.0, 200 << 20, lambda _: GBIT)
        custody = cast("Custody", model)
        precopy = Precopy(
            cast("Rounds", model), custody, ProgressBoard(Progress()), TERMS, 1e9, throttling=Throttling(custody)
        )
        with pytest.raises(TimeoutError, match="timed out"):
            await precopy.run(lambda: 0.0)

    in_virtual_time(scenario)
