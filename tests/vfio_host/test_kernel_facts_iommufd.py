"""iommufd: the host answers as a real kernel did, each case of golden/kernel-facts.json.

A case that nothing here knows how to begin, call or check fails, so the file cannot outgrow its test.
"""

import os
from dataclasses import dataclass

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
    answer_number,
    case_name,
    check_return,
    configuration,
    ranged,
)
from tests.vfio_host.kernels import Handle, Kernel, StartHost, open_path
from tests.vfio_host.ring_driver import INPUTS, MEMORY_BYTES, REGISTERS, RingDriver, packed
from vfio_host.interface import calls
from vfio_host.interface.calls import Answer, AnyCall
from vfio_host.interface.numbers import DEV_IOMMU, VFIO_CDEV, GetDirtyFlags, HwptFlags
from vfio_host.memory_file import MemoryFile

RINGS_IOVA = 0


@dataclass
class Iommu:
    """An iommufd with a bound device."""

    file: Handle
    device: Handle
    dev_id: int
    ioas: int
    hwpt: int = 0


def iommu(kernel: Kernel) -> Iommu:
    file, device = open_path(kernel, DEV_IOMMU), open_path(kernel, VFIO_CDEV + "dev0")
    dev_id = answer_number(device.call(calls.BindIommufd(iommufd=file.id)))
    return Iommu(file, device, dev_id, answer_number(file.call(calls.IoasAlloc())))


def map_file(state: Iommu, iova: int, size: int) -> int:
    memory = new_memory(size)
    call = calls.IoasMapFile(ioas_id=state.ioas, flags=READ_WRITE, file=0, start=0, length=size, iova=iova)
    assert state.file.call(call, (memory,)) == calls.Done()
    return memory


def with_hwpt(state: Iommu, *, enable: bool) -> None:
    call = calls.HwptAlloc(flags=HwptFlags.DIRTY_TRACKING, dev_id=state.dev_id, pt_id=state.ioas)
    state.hwpt = answer_number(state.file.call(call))
    assert state.device.call(calls.AttachPt(pt_id=state.hwpt)) == calls.Done()
    if enable:
        set_tracking = calls.HwptSetDirtyTracking(hwpt_id=state.hwpt, enable=True)
        assert state.file.call(set_tracking) == calls.Done()


def write_pages(kernel: Kernel, state: Iommu, pages: int) -> None:
    """Have the device write so many pages of the mapping, by real jobs whose rings lie in another mapping."""
    descriptor = map_file(state, RINGS_IOVA, MEMORY_BYTES)
    driver = RingDriver(MemoryFile(descriptor, MEMORY_BYTES).view)
    eventfds = os.eventfd(0), os.eventfd(0)
    assert state.device.call(calls.SetEventfds(completion=0, doorbell=1), eventfds) == calls.Done()
    for offset, value in REGISTERS:
        assert state.device.call(calls.RegionWrite(offset=offset, value=value)) == calls.Done()
    length = driver.put(INPUTS, packed(bytes(4 * PAGE)))
    for job in range(pages // 4):
        driver.request(job, length=length, destination=IOVA + job * 4 * PAGE)
    driver.publish()
    os.eventfd_write(eventfds[1], 1)
    kernel.settle(pages // 4, eventfds[0])
    for number in (*eventfds, descriptor):
        os.close(number)


def iommufd_given(kernel: Kernel, given: str) -> Iommu:
    state = iommu(kernel)
    match given:
        case "fresh IOAS" | "nothing mapped" | "second-level tables not offered (first-stage only host)":
            pass
        case "host IOMMU without dirty tracking (every IOMMU that QEMU emulates)":
            pass
        case "device attached":
            assert state.device.call(calls.AttachPt(pt_id=state.ioas)) == calls.Done()
        case "mapped":
            os.close(map_file(state, IOVA, SIZE))
        case "hwpt with dirty tracking, 200 pages written":
            with_hwpt(state, enable=True)
            os.close(map_file(state, IOVA, SIZE))
            write_pages(kernel, state, 200)
        case "hwpt with dirty tracking, tracking never enabled":
            with_hwpt(state, enable=False)
            os.close(map_file(state, IOVA, SIZE))
        case "hwpt with dirty tracking, enabled":
            with_hwpt(state, enable=True)
        case _:
            pytest.fail(f"Unknown beginning {given}")
    return state


def iommufd_call(state: Iommu, case: Case) -> Answer:
    if case.call == "DEVICE_ATTACH":
        return state.device.call(calls.AttachPt(pt_id=state.ioas))
    memory = new_memory(SIZE)
    answer = state.file.call(context_call(state, case), (memory,))
    os.close(memory)
    return answer


def context_call(state: Iommu, case: Case) -> AnyCall:
    iova, size = ranged(case)
    made: AnyCall | None = None
    match case.call:
        case "IOAS_IOVA_RANGES":
            made = calls.IoasIovaRanges(ioas_id=state.ioas)
        case "IOAS_MAP":
            made = calls.IoasMapFile(
                ioas_id=state.ioas, flags=READ_WRITE, file=0, start=0, length=SIZE // 2, iova=IOVA + SIZE // 2
            )
        case "IOAS_UNMAP":
            made = calls.IoasUnmap(ioas_id=state.ioas, iova=iova, length=size)
        case "HWPT_ALLOC":
            flags = HwptFlags[str(case.args["flags"])]
            made = calls.HwptAlloc(flags=flags, dev_id=state.dev_id, pt_id=state.ioas)
        case "HWPT_GET_DIRTY_BITMAP":
            made = dirty_query(state, GetDirtyFlags[str(case.args.get("flags", "NONE"))])
        case "HWPT_SET_DIRTY_TRACKING":
            made = calls.HwptSetDirtyTracking(hwpt_id=state.hwpt, enable=case.args["enable"] is True)
    assert made is not None, f"a call that is not known here: {case.call}"
    return made


def dirty_query(state: Iommu, flags: GetDirtyFlags) -> calls.HwptGetDirtyBitmap:
    return calls.HwptGetDirtyBitmap(hwpt_id=state.hwpt, flags=flags, iova=IOVA, length=SIZE, page_size=PAGE)


def iommufd_also(state: Iommu, case: Case, answer: Answer) -> set[str]:
    also = case.also
    if "ranges" in also:
        assert isinstance(answer, calls.IovaRanges)
        assert [[hex(low), hex(high)] for low, high in answer.ranges] == also["ranges"]
        return {"ranges"}
    if "note" in also:
        assert isinstance(answer, calls.IovaRanges)
        assert answer.ranges == ((0, 0xFEDFFFFF), (0xFEF00000, (1 << 48) - 1))
        return {"note"}
    if "unmapped" in also:
        assert answer_number(answer) == also["unmapped"]
        return {"unmapped"}
    if "hw_info.capabilities" in also:
        assert answer_number(state.file.call(calls.GetHwInfo(dev_id=state.dev_id))) == also["hw_info.capabilities"]
        return {"hw_info.capabilities"}
    if "dirty_pages" in also:
        assert isinstance(answer, calls.Bitmap)
        assert count_ones(answer) == also["dirty_pages"]
        again = state.file.call(dirty_query(state, GetDirtyFlags.NO_CLEAR))
        assert isinstance(again, calls.Bitmap)
        assert (again == answer) is also["next_read_still_sees_them"]
        assert count_ones(again) in {0, also["dirty_pages"]}
        return {"dirty_pages", "next_read_still_sees_them"}
    if isinstance(answer, calls.Bitmap):
        assert count_ones(answer) == 0
    return set()


@pytest.mark.parametrize("case", FACTS.iommufd, ids=case_name)
def test_iommufd_answers_as_the_kernel(case: Case, start: StartHost) -> None:
    kernel = start(configuration(case))
    state = iommufd_given(kernel, case.given)
    answer = iommufd_call(state, case)
    check_return(case, answer)
    assert iommufd_also(state, case, answer) == set(case.also)
