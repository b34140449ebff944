"""A machine whose RAM was written before anybody asks for it."""

from dataclasses import dataclass, field

import numpy as np

from tests.fakes.fake_machine import FakeMachine
from vmm.memory.ram_block import RamBlock


@dataclass
class FilledMachine(FakeMachine):
    """Its RAM holds words that nothing compresses; `blocks` are the mappings that were asked for."""

    blocks: list[RamBlock] = field(default_factory=list)

    async def ram(self) -> RamBlock:
        block = await super().ram()
        block.words[:] = np.random.default_rng(1).integers(1, 2**63, block.words.shape, dtype=np.uint64)
        self.blocks.append(block)
        return block
