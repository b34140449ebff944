"""What a machine process says of itself."""

from collections.abc import Sequence

from vmm.assembly.machine import Machine
from vmm.process.control import Description, GuestFigures, Observation, ThrottledDevices, Tracking
from vmm.process.fence import Fence
from vmm.process.identity import Identity
from vmm.update.blockers import UpdateFinding
from vmm.vfio.blockers import Finding


def describe(
    machine: Machine,
    identity: Identity,
    fence: Fence,
    run_state: str,
    pause: int,
    *,
    witness: bool,
    now_ns: int,
    handed_over: bool = False,
) -> Description:
    """Return everything an agent may know at a moment of the host's clock, without changing anything."""
    report = machine.report()
    blockers, warnings = machine.findings()
    source = machine.memory_source
    devices = machine.device_throttle
    exact = machine.tracking_is_exact()
    return Description(
        machine=identity.machine,
        name=machine.specification.name,
        run_state=run_state,
        pause=pause,
        epoch=fence.epoch,
        controller=fence.controller,
        released=fence.released,
        ram_bytes=machine.memory.block.size,
        populated_bytes=machine.memory.block.populated_bytes(),
        witness=witness,
        boot_id=identity.boot_id,
        pid=identity.pid,
        instance=identity.instance,
        specification=machine.specification.to_json().decode(),
        guest=GuestFigures(
            errors=report.errors,
            jobs_done=report.jobs_done,
            dirty_bytes_per_s=report.dirty_bytes_per_s,
            dma_bytes_per_s=report.dma_bytes_per_s,
            switches=report.switches,
            busy_actions=report.busy_actions,
            pages_written=report.pages_written,
        ),
        memory_kind="" if source is None else source.kind,
        memory_files=() if source is None else tuple(source.files),
        memory_sha256="" if source is None else source.sha256,
        blockers=observations(blockers),
        warnings=observations(warnings),
        tracking=Tracking(exact=exact, mapped_bytes=machine.always_dirty_bytes()),
        device_state_bytes=machine.device_state_bytes().total,
        throttle_percent=machine.throttle_percent(now_ns),
        device_throttle=ThrottledDevices(
            percent=devices.percent(now_ns), slowed=devices.slowed, at_full_speed=devices.at_full_speed
        ),
        handed_over=handed_over,
        hands_over=True,
    )


def observations(findings: Sequence[Finding] | Sequence[UpdateFinding]) -> tuple[Observation, ...]:
    """Return findings as they travel."""
    return tuple(Observation(code=found.code, message=found.message, device=found.device) for found in findings)
