"""Transactions decided here and made there: reads at their revisions, and writes that count only if none has changed.

::

    decide(transaction)   reads keys, and says what to write
    commit                every key that was read still stands at its revision -> all writes, else none: decided again

That is optimistic: who decides holds nothing, and a decision that met another's write is made again on what it wrote.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from orchestrator.store.etcd.client import EtcdClient, after
from orchestrator.store.parts import parts
from orchestrator.store.store import STORE_UNUSABLE
from vm_migration.api.etcd import rpc_pb2 as api
from vm_migration.errors import Refused

TRIES: Final = 32
OPERATIONS: Final = 100
"""What one transaction reads or writes at most; etcd's own default allows 128."""
_AT_ONCE: Final = 50

_Answer = TypeVar("_Answer")


class Transaction:
    """What was read, and what is to be written."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self._read: dict[bytes, int] = {}
        self._ahead: dict[bytes, api.RangeResponse] = {}
        self._written: dict[bytes, api.RequestOp] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return a key's value, or None where it is not there."""
        answer = self._ahead.get(key)
        found = (self._client.range(api.RangeRequest(key=key)) if answer is None else answer).kvs
        self._read[key] = found[0].mod_revision if found else 0
        return found[0].value if found else None

    def read(self, keys: Iterable[bytes]) -> None:
        """Read many keys ahead of `get`, which answers with what was read."""
        asked = list(keys)
        self._ahead.update(zip(asked, ranges(self._client, [api.RangeRequest(key=key) for key in asked]), strict=True))

    def below(self, prefix: bytes) -> list[api.KeyValue]:
        """Return the keys that start so; a new one beside them is not noticed."""
        found = list(self._client.below(prefix))
        self.expect(found)
        return found

    def expect(self, keys: Iterable[api.KeyValue]) -> None:
        """Write only if these keys, read before, still stand so."""
        self._read.update({one.key: one.mod_revision for one in keys})

    def require(self, key: bytes, revision: int) -> None:
        """Write only if a key stands at this revision; 0: it is not there."""
        self._read[key] = revision

    def put(self, key: bytes, value: bytes, *, lease: int = 0) -> None:
        """Write a key; the last word counts."""
        self._written[key] = api.RequestOp(request_put=api.PutRequest(key=key, value=value, lease=lease))

    def delete(self, key: bytes) -> None:
        """Take a key away."""
        self._written[key] = api.RequestOp(request_delete_range=api.DeleteRangeRequest(key=key))

    def delete_below(self, prefix: bytes) -> None:
        """Take away every key that starts so."""
        request = api.DeleteRangeRequest(key=prefix, range_end=after(prefix))
        self._written[prefix] = api.RequestOp(request_delete_range=request)

    def commit(self) -> int:
        """Write everything and return the revision, or nothing and 0 where something that was read has changed."""
        compared = [
            api.Compare(target=api.Compare.MOD, key=key, mod_revision=revision) for key, revision in self._read.items()
        ]
        made = self._client.commit(api.TxnRequest(compare=compared, success=self._written.values()))
        return made.header.revision if made.succeeded else 0

    @property
    def writes(self) -> bool:
        """Whether anything is to be written."""
        return bool(self._written)

    @property
    def size(self) -> int:
        """How many operations it is to etcd, which takes so many of each kind."""
        return max(len(self._read), len(self._written))


def transact(client: EtcdClient, decide: Callable[[Transaction], _Answer]) -> _Answer:
    """Decide and write, again for as long as others write in between, and return what was decided.

    Raises:
        Refused: Others wrote in between every time, or the store cannot be used; it may have happened.
    """
    for _ in range(TRIES):
        transaction = Transaction(client)
        answer = decide(transaction)
        if not transaction.writes or transaction.commit():
            return answer
    text = f"The store {client.place} cannot be used: others wrote in between {TRIES} times"
    raise Refused(STORE_UNUSABLE, text, "Ask again")


def values(client: EtcdClient, keys: Iterable[bytes]) -> list[bytes]:
    """Return the values of those keys that are there, in order, read many at a time."""
    found = ranges(client, [api.RangeRequest(key=key) for key in keys])
    return [kv.value for one in found for kv in one.kvs]


def below_each(client: EtcdClient, prefixes: Iterable[bytes]) -> list[Sequence[api.KeyValue]]:
    """Return the keys that start with each of some texts, read many at a time."""
    asked = [api.RangeRequest(key=prefix, range_end=after(prefix)) for prefix in prefixes]
    return [one.kvs for one in ranges(client, asked)]


def ranges(client: EtcdClient, asked: Sequence[api.RangeRequest]) -> list[api.RangeResponse]:
    """Return the answer to each of many questions, asked many at a time."""
    found: list[api.RangeResponse] = []
    for part in parts(asked, _AT_ONCE):
        answer = client.commit(api.TxnRequest(success=[api.RequestOp(request_range=one) for one in part]))
        found += [response.response_range for response in answer.responses]
    return found
