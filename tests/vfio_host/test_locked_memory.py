"""RLIMIT_MEMLOCK: what is more than a process may have locked is refused, also what it takes over (semantics 9.4)."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.vfio_host.device_streams import refused
from tests.vfio_host.host_process import new_memory, running_host
from tests.vfio_host.shared_memory import shared_memory
from vfio_host.device_iommu import DeviceIommu
from vfio_host.interface import calls
from vfio_host.interface.calls import DeviceConfiguration, Failed, HostConfiguration
from vfio_host.interface.numbers import DEV_VFIO, VFIO_GROUP, HwptFlags, MapFlags, UnmapFlags
from vfio_host.iommufd import Iommufd
from vfio_host.memory_file import UserAddresses
from vfio_host.process.memory_limits import limit_of
from vfio_host.type1 import Type1Container

PAGE, MIB = 4096, 1 << 20
BOTH = MapFlags.READ | MapFlags.WRITE
OLD, NEW = 100, 200


def may_lock(limits: dict[int, int], locked: Callable[[int], int]) -> Callable[[int, int], bool]:
    return lambda process, size: locked(process) + size <= limits.get(process, 1 << 62)


def type1(limits: dict[int, int], *, mediated: bool = False) -> Type1Container:
    addresses, memory = UserAddresses(), shared_memory(MIB)
    for process in (OLD, NEW):
        addresses.register(0, MIB, memory, process)
    made = Type1Container(addresses, may_lock=may_lock(limits, lambda process: made.locked_bytes(process)))  # noqa: PLW0108 - made here
    made.add_group("dev0", DeviceIommu(mediated=mediated))
    made.set_iommu()
    return made


def iommufd(limits: dict[int, int]) -> tuple[Iommufd, int]:
    made = Iommufd(may_lock=may_lock(limits, lambda process: made.locked_bytes(process)))  # noqa: PLW0108 - made here
    space, device = made.ioas_alloc(), made.bind(DeviceIommu())
    made.attach(device, made.hwpt_alloc(HwptFlags.NONE, device, space))
    return made, space


def test_a_type1_mapping_over_the_limit_is_refused_and_one_at_the_limit_is_made() -> None:
    made = type1({OLD: 2 * PAGE})
    made.map(BOTH, 0, 0, 2 * PAGE, OLD)
    with refused(errno.ENOMEM):
        made.map(BOTH, 2 * PAGE, 2 * PAGE, PAGE, OLD)
    assert made.locked_bytes(OLD) == 2 * PAGE
    made.map(BOTH, 2 * PAGE, 2 * PAGE, PAGE, NEW)


def test_a_mapping_that_a_process_may_not_have_locked_stays_the_other_s_which_takes_all_back() -> None:
    made = type1({NEW: 2 * PAGE})
    for page in range(3):
        made.map(BOTH, page * PAGE, page * PAGE, PAGE, OLD)
    made.unmap(UnmapFlags.VADDR | UnmapFlags.ALL, 0, 0)
    for page in range(2):
        made.map(MapFlags.VADDR, page * PAGE, page * PAGE, PAGE, NEW)
    with refused(errno.ENOMEM):
        made.map(MapFlags.VADDR, 2 * PAGE, 2 * PAGE, PAGE, NEW)
    assert (made.locked_bytes(OLD), made.locked_bytes(NEW)) == (PAGE, 2 * PAGE)
    for page in range(2):
        made.unmap(UnmapFlags.VADDR, page * PAGE, PAGE)
    for page in range(3):
        made.map(MapFlags.VADDR, page * PAGE, page * PAGE, PAGE, OLD)
    assert (made.locked_bytes(OLD), made.locked_bytes(NEW)) == (3 * PAGE, 0)


def test_a_process_that_registers_its_own_mapping_anew_is_charged_nothing() -> None:
    made = type1({OLD: PAGE})
    made.map(BOTH, 0, 0, PAGE, OLD)
    made.unmap(UnmapFlags.VADDR | UnmapFlags.ALL, 0, 0)
    made.map(MapFlags.VADDR, 0, 0, PAGE, OLD)


def test_mediated_devices_alone_lock_nothing_and_are_refused_nothing() -> None:
    type1({OLD: 0}, mediated=True).map(BOTH, 0, 0, PAGE, OLD)


def test_a_change_of_process_over_the_limit_changes_nothing() -> None:
    made, space = iommufd({NEW: PAGE})
    memory = shared_memory(MIB)
    for page in range(2):
        made.map(space, BOTH, memory, offset=0, iova=page * PAGE, length=PAGE, process=OLD, by_file=True)
    with refused(errno.ENOMEM):
        made.change_process(NEW)
    assert (made.locked_bytes(OLD), made.locked_bytes(NEW)) == (2 * PAGE, 0)
    made.unmap(space, PAGE, PAGE)
    made.change_process(NEW)
    assert (made.locked_bytes(OLD), made.locked_bytes(NEW)) == (0, PAGE)
    made.change_process(NEW)


def test_a_mapping_of_a_space_without_a_page_table_locks_nothing() -> None:
    made = Iommufd(may_lock=lambda _process, _size: False)
    space = made.ioas_alloc()
    made.map(space, BOTH, shared_memory(MIB), offset=0, iova=0, length=PAGE, process=OLD, by_file=True)
    made.change_process(NEW)


def test_a_change_of_process_of_a_mapping_by_address_is_refused_for_that_before_it_is_charged() -> None:
    made, space = iommufd({NEW: 0})
    made.map(space, BOTH, shared_memory(MIB), offset=0, iova=0, length=PAGE, process=OLD)
    with refused(errno.EINVAL):
        made.change_process(NEW)


WITHOUT_CAPABILITY = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]
"""Runs a command that cannot lock what it likes, whoever it runs as."""
WAITING = """
import resource, sys
resource.setrlimit(resource.RLIMIT_MEMLOCK, (int(sys.argv[1]),) * 2)
print(flush=True)
sys.stdin.read()
"""


def limit_told(limit: int, before: list[str]) -> int | None:
    command = [*before, sys.executable, "-c", WAITING, str(limit)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        told = limit_of(process.pid)
        process.kill()
    return told


def test_the_limit_of_a_process_is_its_own_unless_a_capability_lifts_it() -> None:
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    assert limit_told(5 * PAGE, WITHOUT_CAPABILITY) == 5 * PAGE
    assert limit_told(hard, WITHOUT_CAPABILITY) == (None if hard == resource.RLIM_INFINITY else hard)
    effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    lifted = int(effective.split()[1], 16) >> 14 & 1
    assert limit_told(5 * PAGE, []) == (None if lifted else 5 * PAGE)


ANOTHER = """
import resource, socket, sys
from vfio_host.interface import calls
from vfio_host.interface.channel import Channel
from vfio_host.interface.numbers import MapFlags
resource.setrlimit(resource.RLIMIT_MEMLOCK, (int(sys.argv[2]),) * 2)
channel = Channel(socket.socket(fileno=int(sys.argv[1])))
channel.set_deadline(20)
channel.send(calls.encode(calls.Batch((calls.MapDma(flags=MapFlags.VADDR, vaddr=1 << 30, iova=0, size=1 << 20),))))
print(calls.answers_decoder.decode(channel.receive()[0]).answers[0])
"""


def test_a_host_that_heeds_limits_refuses_a_process_that_may_lock_less(tmp_path: Path) -> None:
    device = DeviceConfiguration(name="qat0", model="qat")
    with running_host(tmp_path, HostConfiguration(devices=(device,), limits_locked_memory=True)) as host:
        root = host.connect()
        group, container, memory = root.open(VFIO_GROUP + "qat0"), root.open(DEV_VFIO), new_memory(MIB)
        group.done(calls.GroupSetContainer(container=container.id))
        container.done(calls.SetIommu())
        root.done(calls.RegisterMemory(vaddr=1 << 40, length=MIB), (memory,))
        container.done(calls.MapDma(flags=BOTH, vaddr=1 << 40, iova=0, size=MIB))
        container.call(calls.UnmapDma(flags=UnmapFlags.ALL | UnmapFlags.VADDR, iova=0, size=0))
        number = container.channel.fileno()
        for limit, answer in ((MIB - PAGE, Failed(errno.ENOMEM)), (MIB, calls.Done())):
            command = [*WITHOUT_CAPABILITY, sys.executable, "-c", ANOTHER, str(number), str(limit)]
            done = subprocess.run(command, pass_fds=[number], capture_output=True, text=True, check=True, timeout=60)
            assert done.stdout.strip() == str(answer)
        root.close()
        os.close(memory)
