"""Calls to the host, in the order in which they are made, sent as few batches.

Calls of one container may go to several descriptors: its own, and those of devices that log. A batch goes to one
descriptor, so a run of calls to the same one is a batch, and the order over all of them is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from vfio_host.interface.calls import Answer, AnyCall
from vmm.vfio.host_port import Descriptor
from vmm.vfio.range_request import RangeRequest

Then = Callable[[Answer, AnyCall, RangeRequest], None]
_LIMIT: Final = 8192


@dataclass(slots=True, eq=False)
class _Run:
    """Calls to one descriptor; lists side by side, so that a call costs no record of its own."""

    descriptor: Descriptor
    calls: list[AnyCall] = field(default_factory=list)
    requests: list[RangeRequest] = field(default_factory=list)
    thens: list[Then] = field(default_factory=list)


class CallQueue:
    """What waits to be sent; `attached` are the descriptors that calls to `own` refer to by index."""

    def __init__(self, own: Descriptor, attached: Sequence[int]) -> None:
        self._own: Final = own
        self._attached: Final = tuple(attached)
        self._runs: list[_Run] = []
        self._queued = 0

    def add(self, descriptor: Descriptor, call: AnyCall, request: RangeRequest, then: Then) -> None:
        """Queue a call; `then` is given its answer, and what was asked. A full queue is sent at once."""
        if not self._runs or self._runs[-1].descriptor is not descriptor:
            self._runs.append(_Run(descriptor))
        run = self._runs[-1]
        run.calls.append(call)
        run.requests.append(request)
        run.thens.append(then)
        self._queued += 1
        if self._queued >= _LIMIT:
            self.flush()

    def flush(self) -> None:
        """Send what is queued.

        Raises:
            HostGone: What happened of it is unknown; the machine's devices are gone with the host process.
        """
        runs, self._runs, self._queued = self._runs, [], 0
        for run in runs:
            attached = self._attached if run.descriptor is self._own else ()
            answers = run.descriptor.batch(run.calls, attached)
            for then, answer, call, request in zip(run.thens, answers, run.calls, run.requests, strict=True):
                then(answer, call, request)
