"""A scenario and what came of it in a few words each, as the tables print them."""

from collections.abc import Collection, Iterator
from typing import Final

from lab.observation import Observation
from lab.scenario import Expectation, Scenario, UpdateSpecification
from vmm.assembly.quantity_text import format_size
from vmm.assembly.specification import DeviceSpecification, MachineSpecification, RulesSpecification

_USUAL_MEMORY: Final = 1 << 30
_LONG_MS: Final = 1000
_VERDICTS: Final = {"accepts": "accepted", "refuses": "refused"}
"""Of the verifier."""


def configuration(scenario: Scenario) -> str:
    """Return what is special about a scenario's machine: vIOMMU, devices, guest, switches that are off."""
    document = scenario.document
    return ", ".join((*_configuration(scenario.machine, document.run.host_page_size), *_how(document.update)))


def expectation(expected: Expectation) -> str:
    """Return what is expected, in the order of `sight`; what the tables have columns for is a number."""
    return ", ".join(_expectation(expected))


def sight(seen: Observation) -> str:
    """Return what was seen, but for pages, flushes and texts, which have columns of their own."""
    return ", ".join(_sight(seen))


def _expectation(expected: Expectation) -> Iterator[str]:
    yield _outcome(expected.outcome, expected.blockers or (), expected.warnings or ())
    if expected.verifier is not None:
        yield _VERDICTS[expected.verifier]
    if expected.pages_lost is not None:
        yield "0 lost" if expected.pages_lost == "none" else "some lost"
    if expected.flushes is not None:
        yield "0 flushes" if expected.flushes == "none" else "a flush for each unmap"
    if isinstance(expected.unmaps, int):
        yield f"{expected.unmaps} unmaps"
    if expected.stale_mappings:
        yield f"{expected.stale_mappings} stale mappings"
    yield from _update(expected)
    if expected.standstill_as_planned:
        yield "stands still as planned"
    if expected.error and not expected.blockers:
        yield f'"{expected.error}"'


def _sight(seen: Observation) -> Iterator[str]:
    yield _outcome(seen.outcome, seen.blockers, seen.warnings)
    if seen.verifier:
        yield _VERDICTS[seen.verifier]
    if seen.unmaps:
        yield f"{seen.unmaps} unmaps"
    if seen.stale_mappings:
        yield f"{seen.stale_mappings} stale mappings"
    yield from _update(seen)
    if seen.standstill_ms >= _LONG_MS:
        yield f"stood still for {seen.standstill_ms / 1000:.1f} s"


def _update(said: Expectation | Observation) -> Iterator[str]:
    if said.updates:
        yield "1 update" if said.updates == 1 else f"{said.updates} updates"
    if said.jobs == "lost":
        yield "jobs lost"
    if said.devices_reset:
        yield f"{said.devices_reset} reset"
    if said.mappings_changed:
        yield f"{said.mappings_changed} mappings made or unmade"
    if said.locked_memory == "left-behind":
        yield "locked memory left behind"


def _outcome(outcome: str, blockers: Collection[str], warnings: Collection[str]) -> str:
    by = f" by {', '.join(dict.fromkeys(blockers))}" if blockers else ""
    warned = f" (warns {', '.join(dict.fromkeys(warnings))})" if warnings else ""
    return f"{outcome}{by}{warned}"


def _configuration(machine: MachineSpecification, host_page_size: int) -> Iterator[str]:
    viommu = machine.viommu
    if viommu.model == "none":
        yield "no vIOMMU"
    else:
        yield viommu.mode if viommu.dma_translation else "interrupts only"
        yield machine.guest.iommu
        if not viommu.reports_max_iova:
            yield "no address width"
    yield from (_device(device) for device in machine.device)
    if machine.memory.size > _USUAL_MEMORY:
        yield _memory(machine.memory.size)
    if host_page_size != 4096:
        yield f"host pages {format_size(host_page_size)}"
    yield from _rules(machine.rules)


def _how(update: UpdateSpecification) -> Iterator[str]:
    yield from (f"{name} off" for name, value in update.model_dump().items() if value is False and name != "tracking")
    if update.tracking:
        yield "tracking"
    if update.locked_memory_limit is not None:
        yield f"may lock {format_size(update.locked_memory_limit)}"


def _memory(size: int) -> str:
    whole = size >> 40 << 40
    return f"{format_size(whole)} + {format_size(size - whole)}" if 0 < whole < size else format_size(size)


def _device(device: DeviceSpecification) -> str:
    words: list[str] = [device.model, device.backend]
    if device.enable_migration != "auto":
        words.append(device.enable_migration)
    if device.backend == "iommufd" and not device.host_iommu_dirty_tracking:
        words.append("untracked")
    if device.bypass_iommu:
        words.append("bypassed")
    if device.model == "nic" and not device.device_dirty_tracking:
        words.append("no log")
    return " ".join(words)


def _rules(rules: RulesSpecification) -> Iterator[str]:
    if rules.set != "merged":
        yield rules.set
    yield from (f"{name} off" for name, value in rules.model_dump().items() if value is False)
