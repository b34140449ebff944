"""Devices whose interrupt is a line (INTx): raised once, masked until it is unmasked, and never forgotten."""

import errno
import os
from collections.abc import Iterator

import pytest

from tests.vfio_host.device_streams import refused
from vfio_host.device_iommu import DeviceIommu
from vfio_host.interface.calls import DeviceConfiguration
from vfio_host.process.passthrough import PassthroughDevice

FLAGS = os.EFD_CLOEXEC | os.EFD_NONBLOCK


@pytest.fixture
def eventfds() -> Iterator[tuple[int, int]]:
    pair = os.eventfd(0, FLAGS), os.eventfd(0, FLAGS)
    yield pair
    for each in pair:
        os.close(each)


def device(eventfds: tuple[int, int], *, intx: bool = True) -> PassthroughDevice:
    made = PassthroughDevice(DeviceConfiguration(name="qat0", model="qat", intx=intx), DeviceIommu())
    made.set_eventfds(*eventfds)
    return made


def raised(eventfds: tuple[int, int]) -> int:
    try:
        return os.eventfd_read(eventfds[0])
    except BlockingIOError:
        return 0


def test_a_line_is_raised_once_until_it_is_unmasked_and_then_for_all_that_came(eventfds: tuple[int, int]) -> None:
    made = device(eventfds)
    for _ in range(3):
        made._raise_completion()
    assert raised(eventfds) == 1
    made.unmask()
    assert raised(eventfds) == 1
    made.unmask()
    assert raised(eventfds) == 0
    made._raise_completion()
    assert raised(eventfds) == 1
    made.close()


def test_a_line_that_nobody_took_is_the_next_process_s_too(eventfds: tuple[int, int]) -> None:
    made = device(eventfds)
    for _ in range(2):
        made._raise_completion()
    other = os.eventfd(0, FLAGS)
    made.set_eventfds(other, eventfds[1])
    made.unmask()
    assert os.eventfd_read(other) == 1
    made.close()
    os.close(other)


def test_a_reset_forgets_what_was_due(eventfds: tuple[int, int]) -> None:
    made = device(eventfds)
    for _ in range(2):
        made._raise_completion()
    made.reset()
    raised(eventfds)
    made.unmask()
    assert raised(eventfds) == 0
    made.close()


def test_messages_are_raised_each_and_have_no_line_to_unmask(eventfds: tuple[int, int]) -> None:
    made = device(eventfds, intx=False)
    for _ in range(3):
        made._raise_completion()
    assert raised(eventfds) == 3
    with refused(errno.EINVAL):
        made.unmask()
    made.close()
