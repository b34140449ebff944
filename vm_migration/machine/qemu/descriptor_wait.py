"""Waiting for a descriptor in a task."""

import asyncio


async def readable(descriptor: int) -> None:
    """Wait until something comes on a descriptor, or its other end closes; of a pidfd, until its process has ended."""
    loop = asyncio.get_running_loop()
    come = asyncio.Event()
    loop.add_reader(descriptor, come.set)
    try:
        await come.wait()
    finally:
        loop.remove_reader(descriptor)
