"""A machine that sends its own stream, or takes one in, and says of it what a test has it say."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.fakes.fake_machine import FakeMachine
from vm_migration.machine.errors import MachineGone, MachineRefused
from vmm.memory.ram_block import RamBlock
from vmm.process.control import Description
from vmm.process.own_stream import DirectAt, DirectTo, StreamState, StreamTerms
from vmm.process.sampled_writes import WritesMeasured

Said = tuple[str, str]
"""The status of the stream, and the run state beside it."""


@dataclass
class StreamingMachine(FakeMachine):
    """`says` is answered one after the other; the last one for ever. None: it does not answer any more."""

    says: list[Said | None] = field(default_factory=list)
    hands_out_ram: bool = True
    transferred: int = 0
    passes: int = 0
    patience_ms: int = 0
    """For how long it may send what is left without a word."""
    written: list[WritesMeasured] = field(default_factory=list)
    """Likewise, of what its memory was found to be written."""
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

    async def start_direct_stream(self, to: DirectTo, terms: StreamTerms) -> None:
        self._asked(f"start direct stream {to.host}:{to.port} {to.name}")

    async def accept_direct_stream(self, at: DirectAt, terms: StreamTerms) -> int:
        self._asked(f"accept direct stream {at.host} {' or '.join(at.admits)} {terms.channels}")
        return 4711

    async def stream(self, known: str = "", wait_ms: int = 0) -> StreamState:
        self._asked("stream")
        self.before_answer(len(self.says))
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if said is None:
            raise MachineGone("QEMU does not answer")
        status, run_status = said
        running = run_status == "running"
        return StreamState(
            status=status,
            run_status=run_status,
            running=running,
            pause=self.pause_number,
            transferred=self.transferred,
            passes=self.passes,
        )

    async def continue_stream(self, patience_ms: int = 0) -> None:
        self.patience_ms = patience_ms
        self._asked("continue stream")

    async def cancel_stream(self) -> None:
        self._asked("cancel stream")

    async def measure_writes(self, window_ms: int) -> None:
        self._asked(f"measure writes for {window_ms}")

    async def writes(self) -> WritesMeasured:
        self._asked("writes")
        return self.written.pop(0) if len(self.written) > 1 else self.written[0]

    async def tune_stream(self, terms: StreamTerms) -> None:
        self._asked(f"tune stream {terms.downtime_limit_ms}")
