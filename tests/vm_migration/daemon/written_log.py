"""The log of this process, to be waited for."""

import asyncio
import io

from tests.vm_migration.daemon.mqtt_brokers import DEADLINE
from vm_migration.telemetry import logs


class Written(io.StringIO):
    """The log, as it is written; told of what libraries log, too."""

    def __init__(self) -> None:
        super().__init__()
        self.grown = asyncio.Event()
        logs.configure("test", stream=self)

    def write(self, text: str) -> int:
        self.grown.set()
        return super().write(text)

    async def until(self, text: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while text not in self.getvalue():
                self.grown.clear()
                await self.grown.wait()
