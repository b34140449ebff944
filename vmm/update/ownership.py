"""Whose the mappings of a machine are, as its host's kernel sees it (semantics 9.4, 9.5).

::

    old process   abandon ----- state ----->                 dies, or `take_back` when the new one did not take over
    new process                              take ---> answers

type1's mappings go without a user address in between, and DMA goes on. iommufd's are by file and need none: they only
count as somebody else's memory afterwards.
"""

import errno
from collections.abc import Iterator, Sequence
from typing import Final

from vfio_host.interface.calls import AnyCall, CheckExtension, Failed, IoasChangeProcess, MapDma, Number, UnmapDma
from vfio_host.interface.numbers import Extension, MapFlags, UnmapFlags
from vmm.assembly.machine import Machine
from vmm.update.blockers import UpdateFacts
from vmm.update.documents import Mapping
from vmm.update.rules import ALL_ON, UpdateRules
from vmm.vfio.container import Container
from vmm.vfio.host_port import HostCallFailed, unless_failed
from vmm.vfio.type1_backend import Type1Backend

_BATCH: Final = 8192
_HAS_ITS_ADDRESS: Final = Failed(errno.EINVAL)
_NOBODY_ELSES: Final = (Failed(errno.EINVAL), Failed(errno.ENOTTY))
"""Answers to a change of process that no process is given another one to."""


def containers_of(machine: Machine) -> tuple[Container, ...]:
    """Return the containers of a machine, each once, in an order that every process of it finds."""
    return tuple(listener.container for listener in machine.listeners)


def mappings_of(machine: Machine) -> tuple[tuple[Mapping, ...], ...]:
    """Return what the host has mapped for each container."""
    return tuple(listener.mappings() for listener in machine.listeners)


def facts_of(machine: Machine) -> tuple[UpdateFacts, ...]:
    """Ask the host what it can do for an update of each device. Nothing changes by it."""
    asked = {id(each): _facts_of(each) for each in containers_of(machine)}
    return tuple(
        UpdateFacts(
            name=device.specification.name,
            backend="type1" if isinstance(device.container.backend, Type1Backend) else "iommufd",
            mediated=device.specification.mediated,
            updates_vaddr=asked[id(device.container)].updates_vaddr,
            unmaps_all=asked[id(device.container)].unmaps_all,
            by_file=asked[id(device.container)].by_file,
            changes_process=asked[id(device.container)].changes_process,
        )
        for device in machine.devices
    )


def abandon(machine: Machine) -> None:
    """Let go of the user addresses of every mapping; DMA goes on without.

    Raises:
        HostCallFailed: Some containers have let go, and `take_back` brings all of them back.
    """
    for container in containers_of(machine):
        container.flush()
        if isinstance(container.backend, Type1Backend) and len(container.mapped):
            container.backend.descriptor.call(UnmapDma(flags=UnmapFlags.ALL | UnmapFlags.VADDR, iova=0, size=0))


def take(machine: Machine, mappings: Sequence[Sequence[Mapping]], rules: UpdateRules = ALL_ON) -> None:
    """Make the mappings that another process let go of this one's; a mapping is neither made nor unmade.

    Raises:
        HostCallFailed: Not all of them are.
    """
    for container, wanted in zip(containers_of(machine), mappings, strict=True):
        if isinstance(container.backend, Type1Backend):
            if rules.register_addresses:
                _register(container, wanted, machine.memory.block.address)
        elif wanted and rules.change_process:
            container.backend.descriptor.call(IoasChangeProcess())


def take_back(machine: Machine, mappings: Sequence[Sequence[Mapping]]) -> None:
    """Make the mappings this process's again, whoever registered an address for which of them in between.

    What the kernel refused to let go of, or to give to anybody else, is this process's still.

    Raises:
        HostCallFailed: Not all of them are.
    """
    for container, wanted in zip(containers_of(machine), mappings, strict=True):
        if isinstance(container.backend, Type1Backend):
            _register_again(container, wanted, machine.memory.block.address)
        elif wanted:
            (answer,) = container.backend.descriptor.batch((IoasChangeProcess(),))
            if answer not in _NOBODY_ELSES:
                unless_failed(IoasChangeProcess(), answer)


def _register(container: Container, mappings: Sequence[Mapping], address: int) -> None:
    for part in _parts(mappings):
        made = _registrations(part, address)
        for call, answer in zip(made, container.backend.descriptor.batch(made), strict=True):
            unless_failed(call, answer)


def _register_again(container: Container, mappings: Sequence[Mapping], address: int) -> None:
    descriptor = container.backend.descriptor
    for part in _parts(mappings):
        gone = descriptor.batch([UnmapDma(flags=UnmapFlags.VADDR, iova=iova, size=size) for iova, size, _, _ in part])
        made = _registrations(part, address)
        for call, before, answer in zip(made, gone, descriptor.batch(made), strict=True):
            if isinstance(before, Failed) and answer == _HAS_ITS_ADDRESS:
                continue  # it did not let go of an address, and takes no other: it has the one that it had
            unless_failed(call, answer)


def _registrations(mappings: Sequence[Mapping], address: int) -> list[AnyCall]:
    return [
        MapDma(flags=MapFlags.VADDR, vaddr=address + offset, iova=iova, size=size) for iova, size, offset, _ in mappings
    ]


def _parts(mappings: Sequence[Mapping]) -> Iterator[Sequence[Mapping]]:
    return (mappings[first : first + _BATCH] for first in range(0, len(mappings), _BATCH))


def _facts_of(container: Container) -> UpdateFacts:
    descriptor = container.backend.descriptor
    if isinstance(container.backend, Type1Backend):
        can = [
            descriptor.call(CheckExtension(extension=each)) == Number(1)
            for each in (Extension.UPDATE_VADDR, Extension.UNMAP_ALL)
        ]
        return UpdateFacts(name="", backend="type1", updates_vaddr=can[0], unmaps_all=can[1])
    (answer,) = descriptor.batch((IoasChangeProcess(),))  # to the process that has them: it changes nothing
    number = answer.errno if isinstance(answer, Failed) else 0
    if number not in (0, errno.EINVAL, errno.ENOTTY):
        raise HostCallFailed(IoasChangeProcess(), number)
    by_file, changes = number != errno.EINVAL, number != errno.ENOTTY
    return UpdateFacts(name="", backend="iommufd", by_file=by_file, changes_process=changes)
