"""Combinations of values in a machine specification that cannot be, each value being right by itself.

The rules read the raw document with its defaults filled in, not the checked model: a wrong value elsewhere must not
hide a conflict. A rule that meets a value of a wrong type is silent, since that value is reported already.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from vmm.assembly.quantity_text import format_rate, format_size, parse_rate, parse_size
from vmm.guest.driver_needs import CORPUS_BYTES, needs_of
from vmm.guest.layout import MINIMUM_RAM, plan
from vmm.memory.quantities import PAGE_SIZE
from vmm.memory.sections import sections

Conflict = tuple[str, str, str]
"""Key, problem, allowed values."""
Document = Mapping[str, object]

_MAXIMUM_RAM: Final = 192 << 40
"""RAM and the PCI hole end below 2^48, the widest address of the vIOMMU."""
_LOCAL_GRANULE: Final = 64 << 10
_LOCAL_DEFAULT: Final = 256 << 20
_LOCAL_MAXIMUM: Final = 4 << 30
_CHURN_MAXIMUM: Final = 64 << 20


def conflicts(document: Document) -> Iterator[Conflict]:
    """Yield every conflict."""
    for rule in (
        _memory_size,
        _memory_backing,
        _caching_mode,
        _first_stage,
        _trackers,
        _local_memory,
        _duplicates,
        _working_set,
        _guest_devices,
        _dma_after_unmap,
        _devices_fit,
    ):
        yield from rule(document)


def _memory_size(document: Document) -> Iterator[Conflict]:
    size = _bytes(_table(document, "memory").get("size"), parse_size)
    if size is None:
        return
    if not MINIMUM_RAM <= size <= _MAXIMUM_RAM:
        allowed = f"{format_size(MINIMUM_RAM)} to {format_size(_MAXIMUM_RAM)}"
        yield "memory.size", f"Out of range: {format_size(size)}", allowed
    elif size % PAGE_SIZE:
        yield "memory.size", f"Not a whole number of pages: {size} bytes", "a multiple of 4KiB"


def _memory_backing(document: Document) -> Iterator[Conflict]:
    memory = _table(document, "memory")
    path = memory.get("path")
    if memory.get("backing") == "file" and path is None:
        yield "memory.path", 'Required with backing = "file"', "a path on a memory file system, such as /dev/shm/ram"
    if memory.get("backing") == "memfd" and path is not None:
        yield "memory.path", 'Has no meaning with backing = "memfd"', 'no path, or backing = "file"'


def _caching_mode(document: Document) -> Iterator[Conflict]:
    viommu = _table(document, "viommu")
    behind = any(device.get("bypass_iommu") is False for _, device in _device_tables(document))
    if viommu.get("model") == "intel" and viommu.get("caching_mode") is False and behind:
        problem = "A passed-through device behind the vIOMMU needs caching mode (semantics 4.2)"
        yield "viommu.caching_mode", problem, "true, or bypass_iommu = true for every device"


def _first_stage(document: Document) -> Iterator[Conflict]:
    viommu = _table(document, "viommu")
    if viommu.get("first_stage") is not True:
        return
    key = "viommu.first_stage"
    if viommu.get("model") == "none" or viommu.get("mode") == "legacy":
        yield key, "First-stage tables are a part of scalable mode", 'false, or mode = "scalable"'
    elif viommu.get("aw_bits") == 39:
        yield key, "First-stage tables have four levels, for 48 bits", "false, or aw_bits = 48"
    elif any(device.get("bypass_iommu") is False for _, device in _device_tables(document)):
        problem = "First-stage tables of a passed-through device need nesting, which is not modelled"
        yield key, problem, "false, or bypass_iommu = true for every device"


def _trackers(document: Document) -> Iterator[Conflict]:
    for index, device in _device_tables(document):
        key = f"device[{index}].host_iommu_dirty_tracking"
        if device.get("host_iommu_dirty_tracking") is True and device.get("backend") == "type1":
            yield key, "type1 cannot use dirty bits of the host IOMMU", 'false, or backend = "iommufd"'
        elif device.get("host_iommu_dirty_tracking") is True and device.get("mediated") is True:
            yield key, "A mediated device has no page table of its own, hence no dirty bits", "false"
        if device.get("device_dirty_tracking") is True and device.get("model") in ("qat", "gpu", "plain"):
            key = f"device[{index}].device_dirty_tracking"
            yield key, f'A device of model "{device.get("model")}" has no DMA log', 'false, or model = "nic"'


def _local_memory(document: Document) -> Iterator[Conflict]:
    for index, device in _device_tables(document):
        size, key = _bytes(device.get("local_memory"), parse_size), f"device[{index}].local_memory"
        if size is None:
            continue
        if device.get("model") in ("qat", "nic", "plain") and size != _LOCAL_DEFAULT:
            yield key, f'A device of model "{device.get("model")}" has no memory of its own', 'no key, or model = "gpu"'
        elif not _LOCAL_GRANULE <= size <= _LOCAL_MAXIMUM or size % _LOCAL_GRANULE:
            allowed = f"{format_size(_LOCAL_GRANULE)} to {format_size(_LOCAL_MAXIMUM)}, in multiples of 64KiB"
            yield key, f"Out of range: {size} bytes", allowed


def _duplicates(document: Document) -> Iterator[Conflict]:
    for key in ("name", "address"):
        first: dict[str, int] = {}
        for index, device in _device_tables(document):
            value = device.get(key)
            if isinstance(value, str) and first.setdefault(value.lower(), index) != index:
                other = f"device[{first[value.lower()]}]"
                yield f"device[{index}].{key}", f'"{value}" is taken by {other}', f"a {key} of its own"


def _working_set(document: Document) -> Iterator[Conflict]:
    guest = _table(document, "guest")
    rate, working_set = _bytes(guest.get("cpu_dirty_rate"), parse_rate), _bytes(guest.get("working_set"), parse_size)
    if rate is not None and working_set is not None and rate > working_set:
        problem = f"{format_rate(rate)} of distinct pages do not exist in a working set of {format_size(working_set)}"
        yield "guest.cpu_dirty_rate", problem, f"at most {format_rate(working_set)}, or a larger guest.working_set"


def _guest_devices(document: Document) -> Iterator[Conflict]:
    """The user-level driver and churn work on a device that the vIOMMU translates for."""
    guest, viommu = _table(document, "guest"), _table(document, "viommu")
    named = [(device.get("name"), device) for _, device in _device_tables(document)]
    devices = {name: device for name, device in named if isinstance(name, str)}
    for key in ("user_driver", "churn"):
        name = _table(guest, key).get("device")
        if not isinstance(name, str):
            continue
        place, device = f"guest.{key}.device", devices.get(name)
        if device is None:
            known = ", ".join(sorted(devices)) or "no device: the machine has none"
            yield place, f'No device "{name}"', known
        elif device.get("bypass_iommu") is True:
            yield place, f'Device "{name}" bypasses the vIOMMU', "a device behind it"
        elif viommu.get("model") == "none" or viommu.get("dma_translation") is False:
            yield place, "Needs a vIOMMU that translates", 'viommu.model = "intel" with dma_translation = true'
    buffer = _bytes(_table(guest, "churn").get("buffer"), parse_size)
    if buffer is not None and (not PAGE_SIZE <= buffer <= _CHURN_MAXIMUM or buffer % PAGE_SIZE):
        allowed = f"{format_size(PAGE_SIZE)} to {format_size(_CHURN_MAXIMUM)}, in whole pages"
        yield "guest.churn.buffer", f"Out of range: {buffer} bytes", allowed


def _dma_after_unmap(document: Document) -> Iterator[Conflict]:
    guest = _table(document, "guest")
    first = next((device for _, device in _device_tables(document)), {})
    if guest.get("dma_after_unmap") is True and first.get("model") in (None, "nic", "gpu"):
        yield "guest.dma_after_unmap", "Only the accelerator's driver misbehaves", 'false, or a first device "qat"'


def _devices_fit(document: Document) -> Iterator[Conflict]:
    size = _bytes(_table(document, "memory").get("size"), parse_size)
    tables = [device for _, device in _device_tables(document)]
    devices = [(device.get("model"), _bytes(device.get("dma_rate"), parse_rate)) for device in tables]
    if size is None or size % PAGE_SIZE or not MINIMUM_RAM <= size <= _MAXIMUM_RAM or len(devices) > 16:
        return
    known = [(model, rate or 0) for model, rate in devices if isinstance(model, str) and model in CORPUS_BYTES]
    layout = plan(size, needs_of(known), 0)
    low = sections(size)[0].size
    if layout.working_set + PAGE_SIZE > low:
        yield (
            "memory.size",
            f"{len(devices)} devices do not fit into {format_size(size)}",
            "more memory, or fewer devices",
        )


def _table(document: Document, key: str) -> Document:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _device_tables(document: Document) -> Iterator[tuple[int, Document]]:
    devices = document.get("device")
    if isinstance(devices, list | tuple):
        yield from ((index, device) for index, device in enumerate(devices) if isinstance(device, dict))


def _bytes(value: object, parse: Callable[[str], int]) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 0 <= value < 1 << 63 else None
    try:
        return parse(value) if isinstance(value, str) else None
    except ValueError:
        return None
