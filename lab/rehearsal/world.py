"""A machine under a virtual clock: its guest and its devices take turns, and each step costs what a rule says.

::

    time  ----|guest|------|device|--|guest|--|device|device|---------------> run_until
                   '- doorbell ->'      ^- completion -'

A step takes STEP_NS of whoever takes it, and nothing of the others, as if each had a core of its own. Of those that
are due at one moment the guest goes first, then the devices in their order. Nothing else decides what happens when,
so that the same machine with the same seed does the same on every run.
"""

import os
from typing import Final

from lab.rehearsal.host_in_process import HostInProcess
from vmm.assembly.machine import Machine
from vmm.guest.pacing import NEVER

STEP_NS: Final = 100_000
"""What a step of the guest, or of a device, takes; both are bounded by about a millisecond of a real core."""


class World:
    """One machine and its host; `now_ns` is the virtual time, which only `run_until` moves."""

    def __init__(self, machine: Machine, host: HostInProcess, now_ns: int = 0) -> None:
        self.machine: Final = machine
        self.host: Final = host
        self.now_ns = now_ns
        self._guest_due = now_ns
        self._guest_free = now_ns
        self._device_free: Final = [now_ns] * len(host.devices)

    def run_until(self, moment_ns: int) -> None:
        """Let everything happen that happens before a moment; a moment that has passed changes nothing."""
        while True:
            due, actor = self._next()
            if due >= moment_ns:
                self.now_ns = max(self.now_ns, moment_ns)
                return
            self.now_ns = max(self.now_ns, due)
            if actor < 0:
                self._step_guest()
            else:
                self._step_device(actor)

    def run_for(self, duration_ms: float) -> None:
        """Let a duration pass."""
        self.run_until(self.now_ns + round(duration_ms * 1e6))

    def wake(self) -> None:
        """Let the guest look around at once: it was started, or told something."""
        self._guest_due = self.now_ns
        self._hear_doorbells()

    def _next(self) -> tuple[int, int]:
        """Return when something happens next, and who does it: -1 for the guest, else a device's index."""
        first = (max(self._guest_due, self._guest_free), -1) if self.machine.running else (NEVER, -1)
        for index, device in enumerate(self.host.devices):
            due = device.due_ns
            if due < NEVER:
                first = min(first, (max(due, self.now_ns, self._device_free[index]), index))
        return first

    def _step_guest(self) -> None:
        self._guest_due = self.machine.step(self.now_ns)
        self._guest_free = self.now_ns + STEP_NS
        self._hear_doorbells()

    def _step_device(self, index: int) -> None:
        self.host.devices[index].step(self.now_ns)
        self._device_free[index] = self.now_ns + STEP_NS
        self._deliver_interrupts()

    def _hear_doorbells(self) -> None:
        for device in self.host.devices:
            try:
                device.take_doorbell()
            except BlockingIOError:
                continue

    def _deliver_interrupts(self) -> None:
        for index, assembled in enumerate(self.machine.devices):
            try:
                os.eventfd_read(assembled.completion)
            except BlockingIOError:
                continue
            if self.machine.running:
                self.machine.interrupt(index)
                self._guest_due = self.now_ns
