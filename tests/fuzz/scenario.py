"""A laboratory's scenario as TOML (lab.scenario), and with it the specification of a machine as TOML."""

from lab.scenario import load_scenarios
from tests.fuzz.target import Target
from tests.fuzz.written_file import written
from vmm.assembly.document_faults import MAX_DOCUMENT, InvalidDocument


def _read(data: bytes) -> None:
    with written(data) as path:
        load_scenarios(path)


_WHOLE = b"""\
name = "fuzzed"
title = "A device is taken while the machine moves"
[run]
bandwidth = "1Gbit/s"
least_rounds = 2
[[action]]
at = "round-1"
do = "take"
device = "qat0"
[machine]
memory.size = "64MiB"
[machine.guest]
vcpus = 1
[[machine.device]]
name = "qat0"
model = "qat"
address = "00:03.0"
[[case]]
name = "short"
run.timeout_ms = 1000
[expect]
outcome = "completed"
pages_lost = "none"
"""
_LEAST = b"""name = "least"
title = ""
machine.memory.size = "64MiB"
expect.outcome = "failed"
"""
TARGET = Target(
    "scenario",
    _read,
    refusals=(InvalidDocument,),
    seeds={"least": _LEAST, "whole": _WHOLE},
    factor=1024,
    declared=lambda _: MAX_DOCUMENT,  # room to read the file
)
