"""Can this machine go on in another process of its host: its host is asked, and every blocker is told at once."""

from orchestrator.agents import Agents, asked_again
from orchestrator.attempt import Notice, notices
from orchestrator.host_standing import UNREACHABLE
from orchestrator.preflight import Candidate
from vm_migration.api.v1 import source_pb2, types_pb2
from vm_migration.errors import MigrationError, Unreachable


async def ask_update(agents: Agents, machine: types_pb2.MachineStatus, mode: str) -> Candidate:
    """Ask a machine's host about an update; nothing is changed.

    Raises:
        MigrationError: Its agent failed otherwise than by not answering, or is of a version that updates nothing.
    """
    request = source_pb2.CheckUpdateRequest(machine=machine.machine, mode=mode)
    try:
        answer = await asked_again(lambda: agents.check_update(machine.host, request))
    except Unreachable as error:
        return _not_judged(machine, Notice(UNREACHABLE, error.message))
    return Candidate(machine.host, notices(answer.blockers), notices(answer.warnings), None, shared_clock=True)


async def ask_update_of_many(agents: Agents, machine: types_pb2.MachineStatus, mode: str) -> Candidate:
    """Ask about one of many machines: that it went away since they were listed, say, is a blocker of its own."""
    try:
        return await ask_update(agents, machine, mode)
    except MigrationError as error:
        return _not_judged(machine, Notice(error.code, error.message))


def _not_judged(machine: types_pb2.MachineStatus, why: Notice) -> Candidate:
    return Candidate(machine.host, (why,), (), None, shared_clock=True)
