"""What the agents of the site were asked to change, as their audit logs say; and a question in an older term."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from tests.deployment.deployment import Attempt, Deployment
from vm_migration.link.audit import Entry

AUDIT_LOG: Final = "/var/lib/viaduct/audit.jsonl"
_SECONDS: Final = 90.0
_CANCEL: Final = """
import asyncio, os, pathlib, sys
from orchestrator.site import agents_of
from vm_migration.api.v1.types_pb2 import AttemptKey
from vm_migration.daemon.configuration import load
from vm_migration.errors import MigrationError

async def main(host, machine, attempt, epoch, term):
    async with agents_of(load(pathlib.Path("/etc/viaduct/viaduct.toml"), os.environ)) as agents:
        try:
            await agents.cancel(host, AttemptKey(machine=machine, attempt=attempt, epoch=int(epoch), term=int(term)))
        except MigrationError as error:
            print(error.code)

asyncio.run(main(*sys.argv[1:]))
"""


async def called(log: asyncio.subprocess.Process, attempt: str, *, after_term: int) -> Entry:
    """Wait until an orchestrator has had something done for an attempt in a later term than that."""
    assert log.stdout is not None
    async with asyncio.timeout(_SECONDS):
        while line := await log.stdout.readline():
            entry = msgspec.json.decode(line, type=Entry)
            if entry.attempt == attempt and entry.term > after_term and entry.outcome == "done":
                return entry
    raise AssertionError(f"The audit log ended without a call for {attempt} after term {after_term}")


def by_orchestrators(site: Deployment, host: str, attempt: str) -> Sequence[Entry]:
    """Return what orchestrators asked of a host for an attempt, in order."""
    lines = site.inside(host, "cat", AUDIT_LOG).splitlines()
    entries = [msgspec.json.decode(line, type=Entry) for line in lines]
    return [one for one in entries if one.attempt == attempt and "/orchestrator/" in one.who]


def cancelled_in_term(site: Deployment, orchestrator: str, attempt: Attempt, host: str, term: int) -> str:
    """Have a host cancel an attempt, as an orchestrator with its certificate asks in some term; return the refusal."""
    key = (host, attempt.machine, attempt.attempt, str(attempt.epoch), str(term))
    return site.inside(orchestrator, "python", "-c", _CANCEL, *key).strip()
