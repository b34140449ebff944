"""The most telling faults of the matrix, on real processes; all of it is `make faults`.

Rows of these are struck in tests/system instead:

    kill:source-agent:pre-copy        test_crashes_during_precopy, test_a_killed_source_agent_leaves_...
    kill:source-vmm:pre-copy          test_crashes_during_precopy, test_a_source_whose_machine_process_dies_...
    kill:orchestrator:pre-copy        test_orchestrator_restart, test_a_killed_orchestrator_goes_on_...
    freeze:leader:pre-copy            test_two_orchestrators, test_a_frozen_leader_that_wakes_up_...
    kill:broker                       test_status_of_migrations, test_a_command_tells_the_broker_...
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.judgement import judge
from tests.faults.lanes import WITHOUT_CABLES, LaneProcess
from tests.faults.network import own_world
from tests.faults.qemu_rows import fetch
from tests.faults.rows import Deed, parse

ROWS = [
    "kill:source-agent:ready:soon",
    "kill:source-agent:active:soon",
    "kill:destination-agent:releasing:soon",
    "kill:source-vmm:ready:never",
    "kill:destination-vmm:releasing:never",
    "kill:destination-vfio-host:handing-over:never",
    "kill:etcd:releasing:soon",
    "freeze:destination-agent:stopping:late",
    "cut:between:pre-copy:late",
    "qemu-newer-multifd:kill:destination-agent:handing-over:soon",
    "qemu-newer-direct-multifd:kill:source-agent:stopping:soon",
    "transfer:kill:source-agent:ready:soon",
    "transfer:kill:source-agent:resuming:soon",
    "transfer:kill:source-vmm:releasing:never",
    "transfer:kill:destination-vmm:releasing:never",
    "transfer:freeze:destination-vmm:switching:late",
    "exec:kill:source-agent:resuming:soon",
]
CAN_CUT = own_world() is not None


@pytest.fixture(scope="module")
def lane() -> Iterator[LaneProcess]:
    if not CAN_CUT:
        print(WITHOUT_CABLES, file=sys.__stderr__)
    fetch()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, contextlib.closing(LaneProcess(Path(folder))) as lane:
        yield lane


@pytest.mark.timeout(300)  # a row that fails waits for everybody's patience first
@pytest.mark.parametrize("text", [text for text in ROWS if CAN_CUT or parse(text).deed is not Deed.CUT])
def test_a_fault_comes_to_what_the_handover_allows(lane: LaneProcess, text: str) -> None:
    seen = lane.play(parse(text))
    logs = "\n".join(f"--- {name}\n{tail}" for name, tail in seen.logs.items())
    assert judge(seen) == [], f"replay: .venv/bin/python -m tests.faults --only {text}\n{seen.states}\n{logs}"


def test_partitions_are_left_out_only_where_nobody_may_make_namespaces() -> None:
    assert CAN_CUT or os.geteuid() != 0, WITHOUT_CABLES
