"""Can this machine go on in another process of its host: its host is asked, and every blocker is told at once."""

from orchestrator.agents import Agents, asked_again
from orchestrator.attempt import Notice, notices
from orchestrator.host_standing import UNREACHABLE
from orchestrator.preflight import Candidate
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.errors import Unreachable


async def ask_update(agents: Agents, machine: types_pb2.MachineStatus, mode: str) -> Candidate:
    """Ask a machine's host about an update; nothing is changed.

    Raises:
        MigrationError: Its agent failed otherwise than by not answering, or is of a version that updates nothing.
    """
    request = source_pb2.CheckUpdateRequest(machine=machine.machine, mode=mode)
    try:
        answer = await asked_again(lambda: agents.check_update(machine.host, request))
    except Unreachable as error:
        return Candidate(machine.host, (Notice(UNREACHABLE, error.message),), (), None, shared_clock=True)
    return Candidate(machine.host, notices(answer.blockers), notices(answer.warnings), None, shared_clock=True)
