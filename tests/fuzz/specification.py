"""A machine's specification as JSON (vmm.assembly.specification), which agents get from whoever creates a machine."""

import json

from tests.fuzz.target import Target, same
from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.specification import parse_specification


def _read(data: bytes) -> None:
    written = parse_specification(data).to_json()
    same(parse_specification(written).to_json(), written)


_WHOLE = {
    "name": "vm1",
    "memory": {"size": "64MiB"},
    "viommu": {"model": "intel", "mode": "scalable"},
    "guest": {"vcpus": 2, "working_set": "8MiB", "cpu_dirty_rate": "1MiB/s"},
    "device": [
        {"name": "qat0", "model": "qat", "address": "00:03.0"},
        {"name": "nic0", "model": "nic", "address": "00:04.0"},
    ],
}
TARGET = Target(
    "specification",
    _read,
    refusals=(InvalidDocument,),
    seeds={
        "least": json.dumps({"name": "tiny", "memory": {"size": "64MiB"}}).encode(),
        "whole": json.dumps(_WHOLE).encode(),
    },
    factor=1024,
)
