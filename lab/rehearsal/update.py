"""A machine updated in virtual time: one process after another takes it over, on the host that it is on.

::

    work -> offered -> stands still: its devices alone for a while -> taken over -> work     and once more
               '--------------------- refused: the process before goes on

What is looked at is what an update is for: the jobs that were in flight, what reached the host, whose memory the pages
are that devices reach, and whether a migration afterwards would see every write.
"""

import contextlib
import os
from dataclasses import replace
from typing import Final

import msgspec

from lab.observation import Observation
from lab.rehearsal.dirty_rate import SETTLE_MS, look_for_missed
from lab.rehearsal.moments import Moments
from lab.rehearsal.several_processes import ProcessOnHost
from lab.rehearsal.side import Side, assembled_side, boot
from lab.rehearsal.world import World
from lab.scenario import Scenario, UpdateSpecification
from vfio_host.interface.rings import RingRegister
from vmm.assembly.machine import Machine
from vmm.guest.console import GuestAction
from vmm.process.interrupts import Interrupts
from vmm.update.blockers import UpdateFacts, UpdateFinding, judge_update
from vmm.update.documents import RAM, EarlyDocument, InvalidHandover, descriptor_names, eventfd_names, require_fit
from vmm.update.handing_over import early_document, objects_of, state_document
from vmm.update.ownership import abandon, facts_of, mappings_of, take_back
from vmm.update.rules import UpdateRules
from vmm.update.taking_over import AdoptedMachine
from vmm.vfio.host_port import HostCallFailed

_MACHINE: Final = "rehearsed"
_PATIENCE_MS: Final = 200
_REFUSALS: Final = (HostCallFailed, InvalidHandover)


def rehearse_update(scenario: Scenario) -> Observation:
    """Update the scenario's machine as often as it says, and return what was seen."""
    run = scenario.document.run
    with contextlib.ExitStack() as stack:
        side = stack.enter_context(assembled_side(scenario))
        boot(side, run.seed)
        side.world.run_for(run.work_ms)
        if Moments(scenario.document.action, side).arrive("start"):
            side.world.run_for(SETTLE_MS)
        return _Updates(scenario, side, stack).run()


class _Updates:
    """The updates of one machine; `stack` takes away what they make."""

    def __init__(self, scenario: Scenario, side: Side, stack: contextlib.ExitStack) -> None:
        self._scenario: Final = scenario
        self._how: Final[UpdateSpecification] = scenario.document.update
        self._rules: Final[UpdateRules] = self._how.rules()
        self._stack: Final = stack
        self._side = side
        self._process = ProcessOnHost(side.host, 0)
        self._interrupts = _interrupts(side.machine, self._process)
        self._seen = Observation(outcome="updated", trackers=_trackers(side.machine))

    def run(self) -> Observation:
        """Update again and again; the first that is refused is the last."""
        self._interrupts.take()
        if self._how.tracking:
            self._side.machine.start_tracking()
        for _ in range(self._how.times):
            found = self._blockers()
            if found and self._how.heed_blockers:
                text = "; ".join(each.message for each in found)
                codes = tuple(str(each.code) for each in found)
                self._seen = replace(self._seen, outcome="blocked", blockers=codes, error=text)
                break
            try:
                self._once()
            except _REFUSALS as failure:
                self._seen = replace(self._seen, outcome="failed", error=str(failure))
                break
            self._seen = replace(self._seen, updates=self._seen.updates + 1)
            self._side.world.run_for(self._scenario.document.run.work_ms)
        return self._looked_at()

    def _blockers(self) -> tuple[UpdateFinding, ...]:
        machine = self._side.machine
        facts = [self._named(each, index) for index, each in enumerate(facts_of(machine))]
        return judge_update(facts, "transfer", suspended=False, tracking=machine.tracking)

    def _named(self, facts: UpdateFacts, index: int) -> UpdateFacts:
        return facts if self._how.invariant_device_names else replace(facts, name=self._descriptor_name(index))

    def _descriptor_name(self, index: int) -> str:
        """Return what a device is called that is known by its descriptor's number: another one in each process."""
        return f"VFIO_FD{self._side.machine.devices[index].completion}"

    def _once(self) -> None:
        """Let the next process take the machine over.

        Raises:
            HostCallFailed, InvalidHandover: The process before has it, and runs it.
        """
        tally = self._side.host.tally
        tally.counting, tally.mappings = True, 0
        registers = self._control_registers()
        process = ProcessOnHost(self._side.host, self._process.number + 1)
        try:
            adopted = self._adopted(process)
            interrupts = _interrupts(adopted.machine, process)
            self._hand_over(adopted, interrupts)
        finally:
            tally.counting = False
            self._seen = replace(
                self._seen,
                mappings_changed=self._seen.mappings_changed + tally.mappings,
                devices_reset=self._seen.devices_reset
                + sum(one != other for one, other in zip(registers, self._control_registers(), strict=True)),
            )
        self._process, self._interrupts = process, interrupts
        world = World(adopted.machine, self._side.host, self._side.world.now_ns)
        self._side = Side(adopted.machine, self._side.host, world)
        adopted.settle()
        self._side.start()

    def _adopted(self, process: ProcessOnHost) -> AdoptedMachine:
        machine = self._side.machine
        document = early_document(machine, _MACHINE)
        if not self._how.invariant_device_names:
            document = self._named_by_descriptors(document)
        require_fit(document, machine.specification, _MACHINE, len(document.descriptors))
        numbers = {RAM: os.dup(machine.memory.block.descriptor)}
        for device in machine.devices:
            completion, doorbell = eventfd_names(device.specification.name)
            numbers |= {completion: device.completion, doorbell: device.doorbell}
        opened = {name: process.copy_of(each) for name, each in objects_of(machine).items()}
        adopted = AdoptedMachine(machine.specification, document, numbers, opened, process, rules=self._rules)
        self._stack.callback(adopted.machine.memory.block.close)
        if not self._rules.preserve_interrupts:
            for device in adopted.machine.devices:
                self._stack.callback(os.close, device.completion)
                self._stack.callback(os.close, device.doorbell)
        return adopted

    def _named_by_descriptors(self, document: EarlyDocument) -> EarlyDocument:
        names = [self._descriptor_name(index) for index in range(len(document.devices))]
        devices = tuple(
            msgspec.structs.replace(device, name=name) for device, name in zip(document.devices, names, strict=True)
        )
        descriptors = descriptor_names(document.containers, names)
        return msgspec.structs.replace(document, devices=devices, descriptors=descriptors)

    def _hand_over(self, adopted: AdoptedMachine, interrupts: Interrupts) -> None:
        old = self._side
        old.machine.stand_still()
        mappings = mappings_of(old.machine)
        try:
            if self._rules.abandon_addresses:
                abandon(old.machine)
            old.world.run_for(self._how.gap_ms)
            adopted.take_over(state_document(old.machine, mappings, pause=1, epoch=1, controller=1, released=-1))
            if self._rules.close_kvm_after_update:
                self._interrupts.give_up()
            interrupts.take()
        except _REFUSALS:
            take_back(old.machine, mappings)
            self._interrupts.take()
            old.start()
            raise

    def _control_registers(self) -> list[int]:
        return [device.hardware.read_register(RingRegister.CONTROL) for device in self._side.host.devices]

    def _looked_at(self) -> Observation:
        """Look for writes that nobody would see, then for jobs that nobody would answer."""
        side, run = self._side, self._scenario.document.run
        side.machine.stop_tracking()
        done = side.machine.report().jobs_done
        missed = look_for_missed(side, run, Moments((), side))
        works = side.machine.report().jobs_done > done and self._comes_to_rest()
        left = sum(ProcessOnHost(side.host, number).locked_memory() for number in range(self._process.number))
        report = side.machine.report()
        return replace(
            self._seen,
            lost_pages=missed.pages,
            jobs="whole" if works else "lost",
            locked_memory="left-behind" if left else "own",
            guest_errors=report.errors,
            switches=report.switches,
            complaints=tuple(side.machine.take_failures()) if self._seen.outcome == "updated" else (),
        )

    def _comes_to_rest(self) -> bool:
        """Let the guest finish what is in flight, and tell whether all of it was answered."""
        machine, world = self._side.machine, self._side.world
        machine.guest_command(GuestAction.QUIET)
        world.wake()
        for _ in range(_PATIENCE_MS):
            if not machine.report().busy_actions:
                return True
            world.run_for(1)
        return False


def _interrupts(machine: Machine, process: ProcessOnHost) -> Interrupts:
    return Interrupts(process, [device.completion for device in machine.devices])


def _trackers(machine: Machine) -> tuple[str, ...]:
    return tuple(assembled.container.tracker.value for assembled in machine.devices)
