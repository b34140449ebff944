"""Who leads of a site's orchestrators: whoever holds a key whose lease it keeps alive. For liveness only.

::

    stands by   looks every LOOK_SECONDS whether the key is there; where it is not, writes it under a lease of its own
    leads       keeps the lease alive every RENEW_SECONDS, until etcd says that it has ended, or the key is not ours
    is gone     the lease ends after LEASE_SECONDS, the key with it; one that leaves ends its lease itself

A leader that cannot reach etcd does not know whether it leads, and goes on: another that leads meanwhile takes its
attempts over in their next term, and agents and store refuse the term before it. A lease is never what keeps two
orchestrators from driving one attempt.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import msgspec

from orchestrator.store.etcd.client import EtcdClient
from orchestrator.store.etcd.transaction import Transaction
from vm_migration.api.etcd import rpc_pb2 as api
from vm_migration.daemon.etcd_place import EtcdPlace
from vm_migration.errors import Refused
from vm_migration.telemetry import logs

LEASE_SECONDS: Final = 3
"""Twice the least that etcd keeps, one and a half of its election timeouts: a busy moment ends no lease."""
RENEW_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 0.25
_DEADLINE: Final = 0.5

_Answer = TypeVar("_Answer")
_log: Final = logs.get(__name__)


class Holder(msgspec.Struct, frozen=True):
    """Who leads; `session` is one life of it."""

    name: str
    session: str


def leader(client: EtcdClient, key: bytes) -> str:
    """Return who leads at this moment, or nothing where nobody does.

    Raises:
        Refused: etcd cannot be used.
    """
    found = Transaction(client).get(key)
    return "" if found is None else _holder(found).name


def _holder(value: bytes) -> Holder:
    return msgspec.json.decode(value, type=Holder)


class Leadership:
    """One orchestrator's share in it."""

    def __init__(self, place: EtcdPlace, key: bytes, name: str) -> None:
        """Describe it; calls have connections and a thread of their own, so that no other call keeps them waiting."""
        self._client = EtcdClient(place, deadline=_DEADLINE)
        self._key = key
        self._me = Holder(name, uuid.uuid4().hex)
        self._lease = 0
        self._rests = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="leadership")
        self.leader = ""
        """Who led when that was looked at last."""

    def close(self) -> None:
        """Let go of the connections."""
        self._thread.shutdown()
        self._client.close()

    async def won(self) -> None:
        """Wait until this orchestrator leads."""
        told = ""
        while True:
            try:
                leads = await self._threaded(self.campaign)
            except Refused as error:
                self._note(error)
            else:
                self._note(None)
                if leads:
                    _log.info("leads")
                    return
            if self.leader != told:
                told = self.leader
                _log.info("stands by", leader=told)
            await asyncio.sleep(LOOK_SECONDS)  # a key's end is told to watches only, which would need looking after too

    async def lost(self) -> None:
        """Keep the lease alive until it has ended, or the key is gone or another's."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)  # a lease ends by the clock
            try:
                leads = await self._threaded(self.renewed)
            except Refused as error:
                self._note(error)
            else:
                self._note(None)
                if not leads:
                    _log.warning("leads no more: its lease has ended, or its key was taken away")
                    return

    async def resigned(self) -> None:
        """End the lease, so that another need not wait for its end."""
        with contextlib.suppress(Refused):
            await self._threaded(self.resign)

    def campaign(self) -> bool:
        """Lead if nobody does, and say whether this orchestrator leads.

        Raises:
            Refused: etcd cannot be used.
        """
        found = self._found()
        self.leader = "" if found is None else _holder(found.value).name
        if found is not None:
            return self._is_mine(found)
        self._lease = self._client.grant(LEASE_SECONDS)
        transaction = Transaction(self._client)
        transaction.require(self._key, 0)
        transaction.put(self._key, msgspec.json.encode(self._me), lease=self._lease)
        return transaction.commit() > 0

    def renewed(self) -> bool:
        """Keep the lease alive; say whether it was, and the key hangs on it: a lease outlives a key that is deleted.

        Raises:
            Refused: etcd cannot be used.
        """
        return self._client.keep_alive(self._lease) and (found := self._found()) is not None and self._is_mine(found)

    def resign(self) -> None:
        """End the lease.

        Raises:
            Refused: etcd cannot be used; the lease ends by itself.
        """
        lease, self._lease = self._lease, 0
        if lease:
            self._client.revoke(lease)

    def _found(self) -> api.KeyValue | None:
        found = self._client.range(api.RangeRequest(key=self._key)).kvs
        return found[0] if found else None

    def _is_mine(self, found: api.KeyValue) -> bool:
        """Say whether it is our key under the lease that we keep alive; a write thought lost may come under another."""
        return _holder(found.value) == self._me and found.lease == self._lease

    def _note(self, error: Refused | None) -> None:
        """Log when etcd begins to rest, and when it is back: it is asked several times a second."""
        if error is not None and not self._rests:
            _log.warning("nobody can see who leads", reason=error.message)
        if error is None and self._rests:
            _log.info("etcd answers again")
        self._rests = error is not None

    async def _threaded(self, call: Callable[[], _Answer]) -> _Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
