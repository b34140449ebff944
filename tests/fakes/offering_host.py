"""A host that tells what it offers, and nothing else."""

from collections.abc import Callable, Sequence
from typing import Final

from vm_migration.api.v1 import types_pb2
from vm_migration.api.v1.machine_pb2_grpc import HostServicer
from vm_migration.link.served import Context


class OfferingHost(HostServicer):
    """Names the features that it is asked for; a custody report is not implemented, and says so."""

    def __init__(self, features: Callable[[], Sequence[str]]) -> None:
        self._features: Final = features

    async def DescribeHost(self, request: types_pb2.Empty, context: Context) -> types_pb2.HostFacts:
        del request, context
        return types_pb2.HostFacts(features=self._features())

    async def ListCustodies(self, request: types_pb2.Empty, context: Context) -> types_pb2.CustodyReport:
        raise NotImplementedError  # nobody asks it where this fake stands
