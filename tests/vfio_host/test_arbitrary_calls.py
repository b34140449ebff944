"""Any call with any arguments on any file ends as an answer or an errno, and the host still works after it."""

import os
import typing

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vfio_host.host_process import QAT, new_memory
from vfio_host.errors import CallRefused
from vfio_host.interface import calls, numbers
from vfio_host.interface.calls import AnyCall, Call
from vfio_host.interface.numbers import DEV_IOMMU, DEV_KVM, DEV_VFIO, VFIO_CDEV, VFIO_GROUP
from vfio_host.process.host import Host
from vfio_host.process.open_file import OpenFile, Opening, Received

PAGE = 4096
NUMBERS = (
    st.integers(0, 6)
    | st.integers(-2, 9).map(lambda page: page * PAGE)
    | st.sampled_from([-1, 1 << 20, 1 << 30, 1 << 40, 0xFEE00000, (1 << 63), (1 << 64) - PAGE, (1 << 64) - 1])
)
FIELDS: dict[object, st.SearchStrategy[object]] = {
    int: NUMBERS,
    bool: st.booleans(),
    memoryview: st.binary(max_size=80).map(memoryview),
    str: st.sampled_from(
        ["", "qat0", "/dev/null", DEV_IOMMU, DEV_VFIO, DEV_KVM, VFIO_CDEV + "qat0", VFIO_GROUP + "qat0"]
    ),
    tuple[tuple[int, int], ...]: st.lists(st.tuples(NUMBERS, NUMBERS), max_size=4).map(tuple),
    numbers.MapFlags: st.integers(0, 9).map(numbers.MapFlags),
    numbers.UnmapFlags: st.integers(0, 9).map(numbers.UnmapFlags),
    numbers.HwptFlags: st.integers(0, 5).map(numbers.HwptFlags),
    numbers.GetDirtyFlags: st.integers(0, 3).map(numbers.GetDirtyFlags),
    numbers.DirtyPagesFlags: st.integers(0, 9).map(numbers.DirtyPagesFlags),
    numbers.DeviceState: st.sampled_from(numbers.DeviceState),
    numbers.Extension: st.sampled_from(numbers.Extension),
    numbers.Feature: st.sampled_from(numbers.Feature),
}


def any_call(kind: type[Call]) -> st.SearchStrategy[AnyCall]:
    fields = {field.name: FIELDS[field.type] for field in msgspec.structs.fields(kind)}
    return st.fixed_dictionaries(fields).map(lambda values: msgspec.convert({"type": kind.__name__, **values}, AnyCall))


KINDS: tuple[type[Call], ...] = typing.get_args(AnyCall)
STEPS = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(KINDS).flatmap(any_call)),
    max_size=40,
)


@settings(max_examples=200)
@given(STEPS)
def test_any_call_ends_as_an_answer_or_an_errno(steps: list[tuple[int, AnyCall]]) -> None:
    host, files = Host(QAT), list[OpenFile]()
    root = host.connect()
    memory, eventfd = new_memory(8 * PAGE), os.eventfd(0)
    for path in (DEV_IOMMU, DEV_VFIO, VFIO_CDEV + "qat0", DEV_KVM):
        files.append(host.open(path).file)
    files[2].call(calls.BindIommufd(iommufd=1), Received(()))
    files[0].call(calls.IoasAlloc(), Received(()))
    received = (memory, eventfd, eventfd)
    for place, call in steps:
        file = [root, *files][place % (len(files) + 1)]
        try:
            answer = file.call(call, Received(received))
        except CallRefused:
            continue
        if isinstance(answer, Opening):
            files.append(answer.file)
        else:
            assert calls.encode(calls.Answers((answer,)))
        for device in host.devices.values():
            device.step(0)
    for file in files:
        file.release()
    for descriptor in (memory, eventfd):
        os.close(descriptor)
    assert host.open(VFIO_CDEV + "qat0").id > 0


def test_every_call_has_a_strategy() -> None:
    assert len(KINDS) == len({kind.__name__ for kind in KINDS})
    for kind in KINDS:
        if not all(field.type in FIELDS for field in msgspec.structs.fields(kind)):
            pytest.fail(f"{kind.__name__} has a field of a type that is not known here")
