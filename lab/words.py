"""A scenario and what came of it in a few words each, as the tables print them."""

from collections.abc import Iterator
from typing import Final

from lab.observation import Observation
from lab.scenario import Expectation, Scenario
from vmm.assembly.quantity_text import format_size
from vmm.assembly.specification import DeviceSpecification, MachineSpecification, RulesSpecification

_USUAL_MEMORY: Final = 1 << 30


def configuration(scenario: Scenario) -> str:
    """Return what is special about a scenario's machine: vIOMMU, devices, guest, switches that are off."""
    return ", ".join(_configuration(scenario.machine, scenario.document.run.host_page_size))


def expectation(expected: Expectation) -> str:
    """Return what is expected."""
    words: list[str] = [expected.outcome]
    if expected.blockers:
        words.append(f"by {', '.join(expected.blockers)}")
    if expected.warnings:
        words.append(f"with {', '.join(expected.warnings)}")
    if expected.verifier is not None:
        words.append(f"verifier {expected.verifier}")
    if expected.pages_lost is not None:
        words.append("no page lost" if expected.pages_lost == "none" else "pages lost")
    if expected.error:
        words.append(f'"{expected.error}"')
    return ", ".join(words)


def sight(seen: Observation) -> str:
    """Return what was seen."""
    words: list[str] = [seen.outcome]
    if seen.blockers:
        words.append(f"by {', '.join(dict.fromkeys(seen.blockers))}")
    if seen.warnings:
        words.append(f"with {', '.join(dict.fromkeys(seen.warnings))}")
    if seen.verifier:
        words.append(f"verifier {seen.verifier}")
    if seen.standstill_ms:
        words.append(f"stood still {seen.standstill_ms:.0f} ms")
    return ", ".join(words)


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
        yield format_size(machine.memory.size)
    if host_page_size != 4096:
        yield f"host pages {format_size(host_page_size)}"
    yield from _rules(machine.rules)


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
