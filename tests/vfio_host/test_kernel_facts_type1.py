"""type1: the host answers as a real kernel did, each case of golden/kernel-facts.json.

A case that nothing here knows how to begin, call or check fails, so the file cannot outgrow its test.
"""

import os

import pytest

from tests.vfio_host.bits import count_ones
from tests.vfio_host.host_process import new_memory
from tests.vfio_host.kernel_facts import (
    FACTS,
    IOVA,
    PAGE,
    READ_WRITE,
    SIZE,
    Case,
    case_name,
    check_return,
    configuration,
    ranged,
)
from tests.vfio_host.kernels import DirectKernel, Handle, Kernel, StartHost, open_path
from vfio_host.interface import calls
from vfio_host.interface.calls import Answer, AnyCall, DeviceConfiguration, HostConfiguration
from vfio_host.interface.numbers import DEV_VFIO, VFIO_GROUP, DirtyPagesFlags, Feature, UnmapFlags

VADDR = 0x7F10_0000_0000
NEEDED = SIZE // PAGE // 8


def type1_container(kernel: Kernel) -> tuple[Handle, Handle]:
    group, container = open_path(kernel, VFIO_GROUP + "dev0"), open_path(kernel, DEV_VFIO)
    assert group.call(calls.GroupSetContainer(container=container.id)) == calls.Done()
    return group, container


def register(kernel: Kernel, vaddr: int, size: int) -> int:
    memory = new_memory(size)
    assert kernel.root.call(calls.RegisterMemory(vaddr=vaddr, length=size), (memory,)) == calls.Done()
    return memory


def type1_given(kernel: Kernel, given: str) -> tuple[Handle, Handle]:
    group, container = type1_container(kernel)
    if "interrupt remapping" in given:
        return group, container
    assert container.call(calls.SetIommu()) == calls.Done()
    if given.startswith("mapped"):
        os.close(register(kernel, VADDR, SIZE))
        assert container.call(calls.MapDma(flags=READ_WRITE, vaddr=VADDR, iova=IOVA, size=SIZE)) == calls.Done()
    if "tracking on" in given or "tracking stopped" in given:
        assert container.call(calls.DirtyPages(flags=DirtyPagesFlags.START)) == calls.Done()
    if "tracking stopped" in given:
        assert container.call(calls.DirtyPages(flags=DirtyPagesFlags.STOP)) == calls.Done()
    return group, container


GET_INFO_KEYS = {
    "iova_pgsizes",
    "migration.pgsize_bitmap",
    "migration.max_dirty_bitmap_size",
    "dma_avail",
    "iova_ranges_aw48",
    "iova_ceiling_aw39",
    "unmap_all",
}
TYPE1_GIVEN = {
    "VT-d without interrupt remapping",
    "fresh container",
    "mapped",
    "mapped, tracking on",
    "tracking on, nothing mapped in the range",
    "tracking on",
    "nothing mapped",
    "mapped, tracking stopped",
    "plain vfio-pci device",
}


def bitmap_size(case: Case) -> int:
    given = case.args.get("bitmap_size", "as needed")
    return given if isinstance(given, int) else NEEDED


def type1_call(case: Case, group: Handle, container: Handle) -> Answer:
    match case.call:
        case "SET_IOMMU":
            return container.call(calls.SetIommu())
        case "GET_INFO":
            return container.call(calls.GetInfo())
        case "MAP_DMA":
            return container.call(calls.MapDma(flags=READ_WRITE, vaddr=VADDR, iova=IOVA + SIZE // 2, size=SIZE // 2))
        case "DEVICE_FEATURE MIGRATION":
            device = group.opened(calls.GroupGetDevice(name="dev0"))
            return device.call(calls.GetFeature(feature=Feature.MIGRATION))
    return container.call(range_call(case))


def range_call(case: Case) -> AnyCall:
    iova, size = ranged(case)
    page, bitmap = case.args.get("pgsize", PAGE), bitmap_size(case)
    assert isinstance(page, int)
    match case.call:
        case "GET_BITMAP":
            query = DirtyPagesFlags.GET_BITMAP
            return calls.DirtyPages(flags=query, iova=iova, size=size, pgsize=page, bitmap_size=bitmap)
        case "UNMAP_DMA+GET_DIRTY_BITMAP":
            unmap = UnmapFlags.GET_DIRTY_BITMAP
            return calls.UnmapDma(flags=unmap, iova=iova, size=size, pgsize=page, bitmap_size=bitmap)
        case "UNMAP_DMA":
            return calls.UnmapDma(flags=UnmapFlags.NONE, iova=iova, size=size)
    pytest.fail(f"Unknown call {case.call}")


def type1_also(case: Case, answer: Answer) -> set[str]:
    """Check what else was seen; return the keys that were checked."""
    also = case.also
    if isinstance(answer, calls.Type1Info):
        assert hex(answer.iova_pgsizes) == also["iova_pgsizes"]
        assert hex(answer.migration_pgsize_bitmap) == also["migration.pgsize_bitmap"]
        assert answer.max_dirty_bitmap_size == also["migration.max_dirty_bitmap_size"]
        assert answer.dma_avail == also["dma_avail"]
        assert [[hex(low), hex(high)] for low, high in answer.iova_ranges] == also["iova_ranges_aw48"]
        assert answer.unmap_all is also["unmap_all"]
        assert narrow_ceiling() == also["iova_ceiling_aw39"]
        return set(GET_INFO_KEYS)
    if isinstance(answer, calls.Unmapped):
        assert answer.size == also["unmapped"]
        if "GET_DIRTY_BITMAP" in case.call:
            assert count_ones(answer.bitmap) == answer.size // PAGE
        else:
            assert answer.bitmap is None
        return {"unmapped"}
    if isinstance(answer, calls.Bitmap):
        assert count_ones(answer) == also.get("dirty_pages", 0)
        assert answer.bits == also.get("of", SIZE // PAGE)
        return {"dirty_pages", "of"} & set(also)
    return set()


def narrow_ceiling() -> str:
    device = DeviceConfiguration(name="dev0", model="qat")
    _, container = type1_given(DirectKernel(HostConfiguration(devices=(device,), address_width=39)), "fresh container")
    info = container.call(calls.GetInfo())
    assert isinstance(info, calls.Type1Info)
    return hex(info.iova_ranges[-1][1])


@pytest.mark.parametrize("case", FACTS.type1, ids=case_name)
def test_type1_answers_as_the_kernel(case: Case, start: StartHost) -> None:
    assert case.given in TYPE1_GIVEN, "a case whose beginning is not known here"
    kernel = start(configuration(case))
    group, container = type1_given(kernel, case.given)
    answer = type1_call(case, group, container)
    check_return(case, answer)
    assert type1_also(case, answer) == set(case.also)
