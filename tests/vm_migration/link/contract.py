"""Every call of the contract, found in all that proto/ generates: a service that comes later is among them."""

import importlib
import pkgutil

from google.protobuf.descriptor import FileDescriptor

from vm_migration.api import v1
from vm_migration.link.machine_stream.opening import CARRY_METHOD

BULK = "/vm_migration.api.v1.Bulk/Send"
"""What is served in place of `TWIN`: its messages are the frames' own bytes, which proto/ cannot say."""
TWIN = "/vm_migration.api.v1.Bulk/SendFrames"
"""The same as protobuf, for programs in other languages; this one does not serve it, and lets nobody call it."""


def described() -> list[FileDescriptor]:
    """Return what every generated module describes."""
    names = [module.name for module in pkgutil.iter_modules(v1.__path__) if module.name.endswith("_pb2")]
    found = [importlib.import_module(f"{v1.__name__}.{name}").DESCRIPTOR for name in names]
    assert all(isinstance(each, FileDescriptor) for each in found)
    return found


METHODS = {
    f"/{service.full_name}/{method.name}": bool(method.server_streaming)
    for module in described()
    for service in module.services_by_name.values()
    for method in service.methods
} | {BULK: True}
del METHODS[TWIN]
"""Whether it answers with a stream, by its name."""
METHODS[CARRY_METHOD] = True
SERVICES = {method.rpartition("/")[0].strip("/") for method in METHODS}
