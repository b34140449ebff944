"""Calls to the host, in the order in which they are made, sent as few batches.

Calls of one container may go to several descriptors: its own, and those of devices that log. A batch goes to one
descriptor, so a run of calls to the same one is a batch, and the order over all of them is kept.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from vfio_host.interface.calls import Answer, AnyCall
from vmm.vfio.host_port import Descriptor

Then = Callable[[Answer], None]
_LIMIT: Final = 8192


class _Queued(NamedTuple):
    descriptor: Descriptor
    call: AnyCall
    then: Then


class CallQueue:
    """What waits to be sent; `attached` are the descriptors that calls to `own` refer to by index."""

    def __init__(self, own: Descriptor, attached: Sequence[int]) -> None:
        self._own: Final = own
        self._attached: Final = tuple(attached)
        self._queue: list[_Queued] = []

    def add(self, descriptor: Descriptor, call: AnyCall, then: Then) -> None:
        """Queue a call; `then` is given its answer. A full queue is sent at once."""
        self._queue.append(_Queued(descriptor, call, then))
        if len(self._queue) >= _LIMIT:
            self.flush()

    def flush(self) -> None:
        """Send what is queued.

        Raises:
            HostGone: What happened of it is unknown; the machine's devices are gone with the host process.
        """
        queue, self._queue = self._queue, []
        for _, run in groupby(queue, key=lambda queued: id(queued.descriptor)):
            batch = list(run)
            descriptor = batch[0].descriptor
            attached = self._attached if descriptor is self._own else ()
            answers = descriptor.batch([queued.call for queued in batch], attached)
            for queued, answer in zip(batch, answers, strict=True):
                queued.then(answer)
