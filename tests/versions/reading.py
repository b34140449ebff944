"""Reads what either version has written, with the code of the version that it is run with; what it cannot read, fails.

usage: reading.py journals FOLDER | records FILE | store FILE

Prints, as one JSON document, what it found: the states of each journal, the states of records (one JSON a line), or
phase and outcome of each attempt, with how many events each has.
"""

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from source_agent.terms import decode as decode_terms
from vm_migration.handover.journal import machines
from vm_migration.handover.journal_format import scan
from vm_migration.handover.record import Record, decode, encode
from vm_migration.handover.states import LEAVING, State

if TYPE_CHECKING:
    from orchestrator.store.sqlite import SqliteStore

CLOSED_BY_A_SOURCE = (State.ABORTED, State.LOST, State.RETIRED)
"""A source agent that starts reads the terms of a record in these states, where it has any."""


def read(payload: bytes) -> Record:
    """Decode a record and everything in it that an agent decodes when it starts."""
    record = decode(payload)
    if encode(record) != payload:
        raise ValueError(f"Read otherwise than it was written: {record}")
    if record.state in LEAVING or (record.state in CLOSED_BY_A_SOURCE and record.policy):
        decode_terms(record.policy)
    return record


def journals(folder: Path) -> dict[str, list[str]]:
    """Return the states of all records of all journals of a host."""
    read_all = {name: scan((folder / name).read_bytes()).payloads for name in machines(folder)}
    return {name: [read(payload).state.value for payload in payloads] for name, payloads in read_all.items()}


def attempts(path: Path) -> dict[str, tuple[str, str, int]]:
    """Return phase, outcome and number of events of each attempt."""
    with _opener()(path) as store:
        rows = store.attempts(everything=True)
        return {row.attempt: (row.phase.value, str(row.outcome), len(store.events(row.attempt))) for row in rows}


def _opener() -> "Callable[[Path], SqliteStore]":
    """Return what opens a store; 0.1.0 had one kind only."""
    if importlib.util.find_spec("orchestrator.store.sqlite") is None:
        older: Callable[[Path], SqliteStore] = importlib.import_module("orchestrator.store.store").Store
        return older
    newer: Callable[[Path], SqliteStore] = importlib.import_module("orchestrator.store.sqlite").SqliteStore
    return newer


def main() -> None:
    """Print what is asked for."""
    what, path = sys.argv[1], Path(sys.argv[2])
    found: object
    if what == "journals":
        found = journals(path)
    elif what == "records":
        found = [read(line).state.value for line in path.read_bytes().splitlines()]
    else:
        found = attempts(path)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
