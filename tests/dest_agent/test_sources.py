"""The question to every host of the site: who has the machine, by an operator's word."""
# ruff: noqa: N802 - methods are named as on the wire

import contextlib
from functools import partial

import msgspec
import pytest

from dest_agent.sources import Sources
from tests.dest_agent.arrivals import PREPARED
from tests.dest_agent.watched import source_record
from vm_migration.api.v1 import source_pb2
from vm_migration.api.v1.source_pb2_grpc import SourceServicer, add_SourceServicer_to_server
from vm_migration.handover.evidence import Process
from vm_migration.handover.record import Record, encode
from vm_migration.handover.states import State
from vm_migration.link.served import Context
from vm_migration.link.server import AgentServer, Service

TAKEN = source_record(State.TAKEN, attempt="earlier", epoch=1, owned_epoch=9, highest_epoch=9)
ELSEWHERE = "00000000-0000-4000-8000-000000000000"


class Telling(SourceServicer):
    """Tells one record, and that its process lives; it is asked with no sequence, which is the attempt's two hosts'."""

    def __init__(self, record: Record) -> None:
        self.record = record

    async def DescribeOutgoing(self, request: source_pb2.AttemptRequest, context: Context) -> source_pb2.OutgoingReport:
        del context
        assert request.key.sequence == 0
        return source_pb2.OutgoingReport(process_alive=True, record=encode(self.record.public()).decode())


@pytest.mark.parametrize(
    ("told", "sight"),
    [
        (TAKEN, State.TAKEN),
        (source_record(State.RELEASED), None),
        (source_record(State.TAKEN, machine=ELSEWHERE, attempt="earlier", epoch=1, owned_epoch=9), None),
    ],
)
async def test_every_host_is_asked_and_a_silent_one_says_nothing(told: Record, sight: State | None) -> None:
    async with contextlib.AsyncExitStack() as stack:
        hosts = {"host-a": "127.0.0.1:1"}
        for host, record in {"host-b": source_record(State.RETIRED), "host-c": told}.items():
            telling = Telling(record)  # type: ignore[abstract]  # the other calls are answered UNIMPLEMENTED
            register = partial(add_SourceServicer_to_server, telling)
            service = Service("vm_migration.api.v1.Source", register)
            server = await stack.enter_async_context(AgentServer("127.0.0.1:0", None, [service], grace=0.0))
            hosts[host] = server.address
        arrived = msgspec.structs.replace(PREPARED, state=State.ACTIVATING)
        owner = await Sources(hosts).owner(arrived, Process.GONE, 5.0)
        assert (owner and owner.sight) == sight
