"""One device in the guest: who has it, and how it goes from the kernel's driver to a user-level one and back.

::

    take         kernel RUNNING -> DRAINING -> CLOSED -> AWAY -> FREED -> BOUND -> MAPPED -> RUNNING user
                              jobs finish    device   default ->  blocked -> user   maps    device
                                             off,     blocked     domain     all    on
                                             unmaps
    give back    user RUNNING -> DRAINING -> CLOSED -> AWAY -> FREED -> BOUND -> MAPPED -> RUNNING kernel
                              jobs finish    device   user ->   tables   default         device on
                                             off      blocked,  freed    domain
                                                      still mapped
    block        RUNNING -> QUIESCING -> BLOCKED     as it is: mapped, open, what came not looked at
    unblock      BLOCKED -> RUNNING                  back to the domain that it was in
    suspend      RUNNING -> SUSPENDING -> SUSPENDED  its work is done and looked at, it is disabled
    wake         SUSPENDED -> RUNNING                opened anew, by the same owner

One arrow is one step of the guest, and a guest may move to another host between any two. The same driver works for
both owners: the user-level workload is the accelerator's own (semantics 10). The way between domains leads through
the blocked one, always (semantics 4.1). A give-back leaves live mappings in the tree while the context entry goes:
that is what seed 000 patch 6 is about. A device that does not finish within two seconds is closed all the same, which
its driver counts as an error.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from vmm.guest.churn import Churn
from vmm.guest.console import ConsoleRefused, GuestAction
from vmm.guest.device_domains import DeviceDomains, StaticMapper
from vmm.guest.device_driver import DeviceDriver, ProgressRefused
from vmm.guest.dma import DmaMapper, MapFailed
from vmm.guest.layout import DeviceArea
from vmm.guest.material import Material
from vmm.guest.owner_state import OwnerState, Phase
from vmm.guest.pacing import NEVER
from vmm.guest.vtd_errors import VtdDriverError
from vmm.memory.guest_physical import AccessFault

MOST_ACTIONS: Final = 32
_POLL_NS: Final = 1_000_000
_PATIENCE_NS: Final = 2_000_000_000
_LONGEST_WAIT_COUNTED_NS: Final = 20_000_000
"""Of the time between two steps: a guest that stood still has not waited."""
_SWITCHES: Final = (GuestAction.TAKE, GuestAction.GIVE_BACK, GuestAction.BLOCK, GuestAction.UNBLOCK)
_WAITING: Final = (Phase.DRAINING, Phase.QUIESCING, Phase.SUSPENDING)
_RESTING: Final = (Phase.BLOCKED, Phase.SUSPENDED)
_SLEEP: Final = (GuestAction.SUSPEND, GuestAction.WAKE)


@dataclass(frozen=True, slots=True)
class UserCycle:
    """A user-level driver takes the device this often and keeps it for so long; never by itself when `every_ns` is 0.

    One that was told to take the device while it does so by itself gives it back after as long.
    """

    every_ns: int
    hold_ns: int


class DeviceOwner:
    """One device, its driver and whoever owns it. Without `domains` the device is not behind a vIOMMU."""

    def __init__(
        self,
        driver: DeviceDriver,
        area: DeviceArea,
        kernel_mapper: DmaMapper,
        *,
        domains: DeviceDomains | None = None,
        cycle: UserCycle | None = None,
        churn: Churn | None = None,
    ) -> None:
        self.driver: Final = driver
        self._area: Final = area
        self._kernel_mapper: Final = kernel_mapper
        self._domains: Final = domains
        self._cycle: Final = cycle if cycle is not None and cycle.every_ns and domains is not None else None
        self._churn: Final = churn
        self._phase, self._user = Phase.RUNNING, False
        self._quiet, self._wedged = False, False
        self._actions: deque[GuestAction] = deque()
        self._since_take, self._held, self._waited = 0, 0, 0
        self._errors, self.switches = 0, 0
        self._last: int | None = None
        self._driver_due, self._churn_due = 0, 0

    @property
    def errors(self) -> int:
        """What was wrong with the device's work, and with the kernel's own."""
        return self._errors + self.driver.errors

    @property
    def busy_actions(self) -> int:
        """How many actions are not finished."""
        return len(self._actions)

    @property
    def suspended(self) -> bool:
        """Whether the device is disabled, and the guest has not been told to wake."""
        return self._phase is Phase.SUSPENDED and not self._actions

    @property
    def switchable(self) -> bool:
        """Whether the device is behind a vIOMMU that translates."""
        return self._domains is not None

    @property
    def churns(self) -> bool:
        """Whether buffers can be churned for it."""
        return self._churn is not None

    @property
    def domain(self) -> str:
        """The domain that the device is in."""
        return "none" if self._domains is None else self._domains.present.value

    def boot(self, material: Material) -> None:
        """Start the device for the first time, with the kernel's driver.

        Raises:
            MapFailed: There is no room for the rings.
        """
        self.driver.boot(material)
        self.driver.open(self._kernel_mapper)

    def command(self, action: GuestAction) -> None:
        """Take an action down.

        Raises:
            ConsoleRefused: The device cannot do that, or has too much to do already.
        """
        if action in _SWITCHES and self._domains is None:
            raise ConsoleRefused(f"Cannot {action}: the device is not behind a vIOMMU that translates")
        if action in (GuestAction.CHURN, GuestAction.CALM) and self._churn is None:
            raise ConsoleRefused(f"Cannot {action}: the specification has no guest.churn for the device")
        if action is not GuestAction.WAKE and self._falls_asleep():
            raise ConsoleRefused(f"Cannot {action}: the guest is suspended, and hears `wake` only")
        if len(self._actions) == MOST_ACTIONS:
            raise ConsoleRefused(f"Cannot {action}: {MOST_ACTIONS} actions are not finished")
        if not self._wedged:
            self._actions.append(action)

    def _falls_asleep(self) -> bool:
        last = next((each for each in reversed(self._actions) if each in _SLEEP), None)
        return self.suspended if last is None else last is GuestAction.SUSPEND

    def interrupt(self) -> None:
        """Take the device's interrupt."""
        self.driver.interrupt()
        self._driver_due = 0

    def restart_clock(self) -> None:
        """Forget the clock."""
        self._last, self._driver_due, self._churn_due = None, 0, 0
        self.driver.restart_clock()
        if self._churn is not None:
            self._churn.restart_clock()

    def rate(self, now_ns: int) -> float:
        """Return the bytes per second that the device wrote; none while it rests."""
        resting = self._phase is not Phase.RUNNING or (self.driver.halted and self.driver.idle)
        return 0.0 if resting else self.driver.rate(now_ns)

    def step(self, now_ns: int) -> int:
        """Do one thing, of at most about a millisecond; return when the next is due.

        A kernel whose IOMMU driver or tables are spoilt gives the device up: an error, and nothing after it.
        """
        if self._wedged:
            return NEVER
        self._count_time(now_ns)
        try:
            if self._phase is Phase.RUNNING or self._phase in _RESTING:
                return self._stay(now_ns)
            return self._go_on(now_ns)
        except MapFailed:
            return now_ns + _POLL_NS  # table pages come back with other devices' unmaps
        except (VtdDriverError, AccessFault):
            self._errors += 1
            self._wedged = True
            self._actions.clear()
            return NEVER

    def save(self) -> OwnerState:
        """Return the state that moves."""
        return OwnerState(
            phase=self._phase,
            user=self._user,
            quiet=self._quiet,
            wedged=self._wedged,
            actions=tuple(self._actions),
            since_take_ns=self._since_take,
            held_ns=self._held,
            waited_ns=self._waited,
            switches=self.switches,
            errors=self._errors,
            churn=None if self._churn is None else self._churn.save(),
            driver=self.driver.save(),
        )

    def load(self, state: OwnerState) -> None:
        """Go on where another host's stopped; nothing touches the device yet.

        Raises:
            ProgressRefused: The state cannot be this device's. A part of it may have been taken over.
        """
        if (state.churn is None) != (self._churn is None):
            raise ProgressRefused("State and specification differ in guest.churn")
        without = (Phase.RUNNING, Phase.SUSPENDING, Phase.SUSPENDED)
        if self._domains is None and (state.user or state.phase not in without):
            raise ProgressRefused("State of a device behind a vIOMMU, for one that is not")
        spans = (state.since_take_ns, state.held_ns, state.waited_ns, state.switches, state.errors)
        if min(spans) < 0 or len(state.actions) > MOST_ACTIONS:
            raise ProgressRefused("State of a device has an impossible span, count or number of actions")
        self.driver.load(state.driver, self._mapper(user=state.user))
        if self._churn is not None and state.churn is not None:
            self._churn.load(state.churn)
        self._phase, self._user = state.phase, state.user
        self._quiet, self._wedged = state.quiet, state.wedged
        self._actions = deque(state.actions)
        self._since_take, self._held, self._waited = state.since_take_ns, state.held_ns, state.waited_ns
        self.switches, self._errors = state.switches, state.errors
        self.restart_clock()

    # ---- with an owner

    def _stay(self, now_ns: int) -> int:
        """Carry out the next action, or let driver and churn work."""
        if self._actions and self._follow(self._actions[0]):
            self._actions.popleft()
            return now_ns
        alarm = NEVER if self._actions else self._alarm(now_ns)
        if self._phase is Phase.RUNNING:
            due = min(self._work(now_ns), alarm)
            return min(due, now_ns + _POLL_NS) if self._actions else due
        return now_ns + _POLL_NS if self._actions or self._phase not in _RESTING else NEVER

    def _follow(self, action: GuestAction) -> bool:
        """Do what an action asks for next; return whether it is finished."""
        match action:
            case GuestAction.CHURN | GuestAction.CALM:
                return self._set_churn(on=action is GuestAction.CHURN)
            case GuestAction.QUIET:
                self._quiet = True
                self.driver.halt()
                rests = self.driver.idle or (self._phase is Phase.BLOCKED and not self.driver.busy)
                return self._set_churn(on=False) and rests
            case GuestAction.BLOCK:
                if self._phase is Phase.RUNNING:
                    self._leave(Phase.QUIESCING)
                return self._phase is Phase.BLOCKED
            case GuestAction.SUSPEND | GuestAction.WAKE:
                return self._sleep() if action is GuestAction.SUSPEND else self._wake()
            case GuestAction.UNBLOCK:
                self._unblock()
            case GuestAction.TAKE | GuestAction.GIVE_BACK:
                self._unblock()
                if self._user is not (action is GuestAction.TAKE):
                    self._leave(Phase.DRAINING)
        return self._phase is Phase.RUNNING

    def _alarm(self, now_ns: int) -> int:
        """Let the user-level driver take the device, or give it back, by itself; return when it will."""
        if self._cycle is None or self._quiet or self._phase is not Phase.RUNNING:
            return NEVER
        left = self._cycle.hold_ns - self._held if self._user else self._cycle.every_ns - self._since_take
        if left <= 0:
            self._leave(Phase.DRAINING)
        return now_ns + max(0, left)

    def _work(self, now_ns: int) -> int:
        churn = self._churn if not self._user else None
        churn_due = NEVER if churn is None or not churn.on else self._churn_due
        if churn is not None and churn_due <= now_ns and churn_due < self._driver_due:
            self._churn_due = churn_due = max(now_ns, churn.step(now_ns))
        elif self._driver_due <= now_ns:
            self._driver_due = max(now_ns, self.driver.step(now_ns))
        elif churn is not None and churn_due <= now_ns:
            self._churn_due = churn_due = max(now_ns, churn.step(now_ns))
        return min(self._driver_due, churn_due)

    def _set_churn(self, *, on: bool) -> bool:
        """Turn churn on, or off and away; return whether that is done."""
        if self._churn is None:
            return True
        self._churn.on = on
        self._churn_due = 0
        if on:
            return True
        self._churn.drain()
        return self._churn.empty

    # ---- on the way

    def _leave(self, phase: Phase) -> None:
        self.driver.halt()
        self._phase, self._waited = phase, 0
        if phase is Phase.DRAINING and not self._user:
            self._since_take, self._held = 0, 0

    def _unblock(self) -> None:
        if self._phase is Phase.BLOCKED:
            self._enter()
            self._run()

    def _sleep(self) -> bool:
        self._unblock()
        if self._phase is Phase.RUNNING:
            self._leave(Phase.SUSPENDING)
        return self._phase is Phase.SUSPENDED

    def _wake(self) -> bool:
        if self._phase is Phase.SUSPENDED:
            if not self.driver.failed:
                self.driver.open(self._mapper(user=self._user))
            self._run()
        return self._phase is Phase.RUNNING

    def _go_on(self, now_ns: int) -> int:
        """Take the next step of the way."""
        match self._phase:
            case Phase.DRAINING | Phase.SUSPENDING:
                return self._drain(now_ns)
            case Phase.QUIESCING if self.driver.busy and self._waited < _PATIENCE_NS:
                return now_ns + _POLL_NS
            case Phase.QUIESCING | Phase.CLOSED:
                self._way.block()
                self.switches += 1
                self._phase = Phase.AWAY if self._phase is Phase.CLOSED else Phase.BLOCKED
            case Phase.AWAY:
                if self._user:
                    self._way.free_user()
                self._user, self._phase = not self._user, Phase.FREED
            case _:
                self._arrive()
        return now_ns

    def _arrive(self) -> None:
        """Take the next step into the new owner's hands."""
        if self._phase is Phase.FREED:
            self._enter()
            self._phase = Phase.BOUND
        elif self._phase is Phase.BOUND:
            if self._user:
                self._way.map_user(self._area)
            self._phase = Phase.MAPPED
        else:
            if not self.driver.failed:
                self.driver.open(self._mapper(user=self._user))
            self._run()

    def _drain(self, now_ns: int) -> int:
        """Let the driver finish and unmap what is churned; then disable the device."""
        kernel_churn = self._churn if not self._user else None
        if kernel_churn is not None and not kernel_churn.empty:
            kernel_churn.drain()
        elif self.driver.idle or self._waited >= _PATIENCE_NS:
            self.driver.close()
            self._phase = Phase.SUSPENDED if self._phase is Phase.SUSPENDING else Phase.CLOSED
            return now_ns
        else:
            return max(now_ns, min(self.driver.step(now_ns), now_ns + _POLL_NS))
        return now_ns

    @property
    def _way(self) -> DeviceDomains:
        if self._domains is None:
            raise AssertionError("A device without domains leaves its owner")
        return self._domains

    def _enter(self) -> None:
        """Go from the blocked domain into the owner's."""
        if self._user:
            self._way.enter_user()
        else:
            self._way.enter_default()
        self.switches += 1

    def _run(self) -> None:
        self._phase, self._driver_due, self._churn_due = Phase.RUNNING, 0, 0
        if not self._quiet:
            self.driver.resume()

    def _mapper(self, *, user: bool) -> DmaMapper:
        return StaticMapper(self._area) if user else self._kernel_mapper

    def _count_time(self, now_ns: int) -> None:
        elapsed = 0 if self._last is None else max(0, now_ns - self._last)
        self._last = now_ns
        self._since_take += elapsed
        if self._phase is Phase.RUNNING and self._user:
            self._held += elapsed
        if self._phase in _WAITING:
            self._waited += min(elapsed, _LONGEST_WAIT_COUNTED_NS)
