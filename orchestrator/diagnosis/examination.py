"""The whole examination of a site: what two looks agree on.

The journals of two hosts are not read at one instant: a handover may pass between them, and an attempt may be in the
middle of tidying up. So what looks wrong is looked at again, and only what is wrong both times is told.
"""

import asyncio
from typing import Final

from orchestrator.agents import Agents
from orchestrator.diagnosis.diagnosis import Diagnosis, agreed, diagnosis
from orchestrator.diagnosis.look import look

LOOK_AGAIN_SECONDS: Final = 1.5


async def examine(agents: Agents) -> Diagnosis:
    """Look at every host, and again where something is wrong.

    Raises:
        InvalidInput: The own configuration is wrong.
    """
    first = diagnosis(await look(agents))
    if not any(one.machine for one in first.findings if one.severity == "problem"):
        return first
    await asyncio.sleep(LOOK_AGAIN_SECONDS)
    return agreed(first, await look(agents, first.site))
