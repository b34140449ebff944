"""type1 mappings whose user addresses are abandoned and registered anew (semantics 9.4), on the container."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vfio_host.device_streams import refused
from tests.vfio_host.shared_memory import shared_memory
from vfio_host.device_iommu import DeviceIommu
from vfio_host.interface.bitmaps import dense
from vfio_host.interface.numbers import DirtyPagesFlags, Extension, MapFlags, UnmapFlags
from vfio_host.memory_file import UserAddresses
from vfio_host.type1 import Type1Container

PAGE, MIB = 4096, 1 << 20
BOTH = MapFlags.READ | MapFlags.WRITE
EVERYTHING = UnmapFlags.VADDR | UnmapFlags.ALL
OLD, NEW = 100, 200
"""Processes; the new one has RAM at an address at which the old one has nothing."""
NEW_ADDRESS = 1 << 40


def container(*, mediated: bool = False, updates_vaddr: bool = True) -> Type1Container:
    addresses, memory = UserAddresses(), shared_memory(MIB)
    addresses.register(0, MIB, memory, OLD)
    addresses.register(NEW_ADDRESS, MIB, memory, NEW)
    made = Type1Container(addresses, updates_vaddr=updates_vaddr)
    made.add_group("dev0", DeviceIommu(mediated=mediated))
    made.set_iommu()
    return made


def mapped(*pages: int, **settings: bool) -> Type1Container:
    """Return a container with one mapping of a page at each page number, by the old process."""
    made = container(**settings)
    for page in pages:
        made.map(BOTH, page * PAGE, page * PAGE, PAGE, OLD)
    return made


def register(made: Type1Container, page: int, size: int = PAGE) -> None:
    made.map(MapFlags.VADDR, NEW_ADDRESS + page * PAGE, page * PAGE, size, NEW)


@given(st.sets(st.integers(0, 255), min_size=1, max_size=20), st.data())
def test_dma_goes_on_while_mappings_have_no_address_and_each_write_is_dirty(
    pages: set[int], data: st.DataObject
) -> None:
    made = mapped(*pages)
    assert made.table is not None
    made.dirty_pages(DirtyPagesFlags.START)
    generation = made.table.generation
    written = data.draw(st.sets(st.sampled_from(sorted(pages))))
    assert made.unmap(EVERYTHING, 0, 0).size == len(pages) * PAGE
    for page in written:
        made.table.write(page * PAGE, bytes([page]) * 8)
    for page in pages:
        register(made, page)
    assert made.table.generation == generation, "a mapping was made or unmade"
    for page in pages:
        assert made.table.read(page * PAGE, 8) == (bytes([page]) if page in written else b"\0") * 8
    bitmap = made.dirty_pages(DirtyPagesFlags.GET_BITMAP, 0, MIB, pgsize=PAGE, bitmap_size=32)
    assert bitmap is not None
    found = int.from_bytes(dense(bitmap), "little")
    assert {page for page in range(256) if found >> page & 1} == pages


def test_a_new_owner_is_charged_for_what_it_registered_and_the_old_one_no_more() -> None:
    made = mapped(1, 2, 3)
    assert (made.locked_bytes(OLD), made.locked_bytes(NEW)) == (3 * PAGE, 0)
    made.unmap(EVERYTHING, 0, 0)
    assert made.locked_bytes(OLD) == 3 * PAGE, "pages stay pinned, and somebody's"
    register(made, 2)
    assert (made.locked_bytes(OLD), made.locked_bytes(NEW)) == (2 * PAGE, PAGE)
    register(made, 1)
    register(made, 3)
    assert (made.locked_bytes(OLD), made.locked_bytes(NEW)) == (0, 3 * PAGE)


def test_an_old_process_takes_its_mappings_back_whoever_registered_them_last() -> None:
    made = mapped(1, 2)
    made.unmap(EVERYTHING, 0, 0)
    register(made, 1)
    made.unmap(UnmapFlags.VADDR, PAGE, PAGE)
    for page in (1, 2):
        made.map(MapFlags.VADDR, page * PAGE, page * PAGE, PAGE, OLD)
    assert (made.locked_bytes(OLD), made.locked_bytes(NEW)) == (2 * PAGE, 0)


def test_abandoning_what_is_abandoned_already_is_refused_and_takes_nothing_else_along() -> None:
    made = mapped(1, 2, 3)
    made.unmap(UnmapFlags.VADDR, 2 * PAGE, PAGE)
    with refused(errno.EINVAL):
        made.unmap(EVERYTHING, 0, 0)
    for page in (1, 3):  # both have their addresses still
        with refused(errno.EINVAL):
            register(made, page)
    register(made, 2)


def test_only_a_whole_mapping_without_an_address_is_registered() -> None:
    made = container()
    made.map(BOTH, 0, 0, 2 * PAGE, OLD)
    with refused(errno.EINVAL):
        register(made, 0, 2 * PAGE)
    made.unmap(EVERYTHING, 0, 0)
    with refused(errno.EINVAL):
        register(made, 0)
    with refused(errno.EINVAL):
        register(made, 1)
    with refused(errno.ENOENT):
        register(made, 7)
    with refused(errno.EINVAL):
        made.map(BOTH | MapFlags.VADDR, NEW_ADDRESS, 0, 2 * PAGE, NEW)
    register(made, 0, 2 * PAGE)


def test_no_group_joins_while_a_mapping_has_no_address() -> None:
    made = mapped(1, 2)
    made.unmap(EVERYTHING, 0, 0)
    register(made, 1)
    with refused(errno.EBUSY):
        made.add_group("dev1", DeviceIommu())
    made.unmap(UnmapFlags.NONE, 2 * PAGE, PAGE)
    made.add_group("dev1", DeviceIommu())


def test_nothing_is_left_to_be_registered_when_the_last_group_has_gone() -> None:
    made = mapped(1)
    made.unmap(EVERYTHING, 0, 0)
    made.remove_group("dev0")
    made.add_group("dev0", DeviceIommu())


def test_a_mediated_device_forbids_it_and_locks_nothing() -> None:
    made = mapped(1, mediated=True)
    assert not made.extension(Extension.UPDATE_VADDR)
    assert made.extension(Extension.UNMAP_ALL)
    with refused(errno.EBUSY):
        made.unmap(EVERYTHING, 0, 0)
    assert made.locked_bytes(OLD) == 0


@pytest.mark.parametrize("offered", [True, False])
def test_a_kernel_that_cannot_says_so_and_knows_none_of_the_flags(offered: bool) -> None:
    made = mapped(1, updates_vaddr=offered)
    assert made.extension(Extension.UPDATE_VADDR) is offered
    if offered:
        return
    with refused(errno.EINVAL):
        made.unmap(EVERYTHING, 0, 0)
    with refused(errno.EINVAL):
        register(made, 1)


def test_before_an_iommu_is_set_no_address_can_be_updated() -> None:
    assert not Type1Container(UserAddresses()).extension(Extension.UPDATE_VADDR)


def test_each_process_has_its_own_addresses_and_the_oldest_are_forgotten() -> None:
    addresses, memory = UserAddresses(), shared_memory(PAGE)
    for process in range(5):
        addresses.register(process * PAGE, PAGE, memory, process)
    with refused(errno.EFAULT):
        addresses.find(0, PAGE, 0)
    with refused(errno.EFAULT):
        addresses.find(PAGE, PAGE, 2)
    assert addresses.find(PAGE, PAGE, 1) == (memory, 0)
