"""A call that is to carry a machine's stream, and does not say which."""

import asyncio
from typing import Final, cast

import pytest

from dest_agent.stream_arrival import StreamArrival
from dest_agent.stream_service import StreamService
from vm_migration.errors import Unauthorised
from vm_migration.link.served import Context


class NoArrival:
    """Knows of nothing that arrives, and is asked for nothing."""

    def stream_target(self, attempt: str) -> StreamArrival:
        raise AssertionError(attempt)


class Mute:
    """A call whose source says nothing, and leaves it open or ends it."""

    def __init__(self, *, ends: bool) -> None:
        self._ends: Final = ends

    async def read(self) -> object:
        if not self._ends:
            await asyncio.Event().wait()
        return object()


@pytest.mark.parametrize(("ends", "says"), [(True, "ended before it named"), (False, "named no connection within 0 s")])
async def test_a_call_that_names_no_connection_is_refused(ends: bool, says: str) -> None:
    service = StreamService(NoArrival(), patience=5.0 if ends else 0.0)
    with pytest.raises(Unauthorised, match=says):
        await service.carry(None, cast("Context", Mute(ends=ends)))
