"""A machine that sends its own stream, or takes one in, and says of it what a test has it say."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.fakes.fake_machine import FakeMachine
from vm_migration.machine.port import MachineGone, MachineRefused
from vmm.memory.ram_block import RamBlock
from vmm.process.control import Description
from vmm.process.own_stream import StreamState, StreamTerms

Said = tuple[str, str]
"""The status of the stream, and the run state beside it."""


@dataclass
class StreamingMachine(FakeMachine):
    """`says` is answered one after the other; the last one for ever. None: it does not answer any more."""

    says: list[Said | None] = field(default_factory=list)
    hands_out_ram: bool = True
    before_answer: Callable[[int], None] = lambda _left: None
    """Called with how many answers are left, before each."""

    async def describe(self) -> Description:
        return msgspec.structs.replace(await super().describe(), moves="stream")

    async def ram(self) -> RamBlock:
        if not self.hands_out_ram:
            raise MachineRefused("Its memory is its own")
        return await super().ram()

    async def start_stream(self, path: str, terms: StreamTerms) -> None:
        self._asked(f"start stream {Path(path).name}")

    async def accept_stream(self, path: str, terms: StreamTerms) -> None:
        self._asked(f"accept stream {Path(path).name} {terms.channels}")

    async def stream(self, known: str = "", wait_ms: int = 0) -> StreamState:
        self._asked("stream")
        self.before_answer(len(self.says))
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if said is None:
            raise MachineGone("QEMU does not answer")
        status, run_status = said
        running = run_status == "running"
        return StreamState(status=status, run_status=run_status, running=running, pause=self.pause_number)

    async def continue_stream(self) -> None:
        self._asked("continue stream")

    async def cancel_stream(self) -> None:
        self._asked("cancel stream")

    async def tune_stream(self, terms: StreamTerms) -> None:
        self._asked(f"tune stream {terms.downtime_limit_ms}")
