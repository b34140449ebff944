"""Whether the destination of a machine's own stream still lives: its connections may rightly be silent for long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from source_agent.destination_link import DestinationLink
from source_agent.pulse import STALL
from vm_migration.api.v1 import destination_pb2, types_pb2
from vm_migration.errors import AttemptFailed

_BEAT: Final = 1.0


@asynccontextmanager
async def heartbeat(link: DestinationLink, key: types_pb2.AttemptKey) -> AsyncIterator[None]:
    """Ask the destination every second for the length of the context, whose body ends when it cannot go on.

    Raises:
        ExceptionGroup: Of Unreachable, where nobody answered for STALL seconds, of AttemptFailed, where its process has
            ended, or of what the body failed with.
    """
    async with asyncio.TaskGroup() as group:
        beating = group.create_task(_beat(link, key), name="heartbeat")
        yield
        beating.cancel()


async def _beat(link: DestinationLink, key: types_pb2.AttemptKey) -> None:
    while True:
        await asyncio.sleep(_BEAT)  # silence has no event
        report = await link.describe(destination_pb2.DescribeIncomingRequest(key=key), STALL)
        if not report.process_alive:
            text = f"The process at {link.peer} that the machine was to run in has ended"
            raise AttemptFailed("process-gone", text, "Look at its log; the machine goes on at its source")
