"""The open attempts, which are looked at again and again: what nobody has written since is not read again.

::

    etcd stands where it stood         one question, of one small key: nothing was written, by anybody
    something was written since        which attempts are open now; of each its row, if that was written since

Where etcd stands is asked before anything is read: what is remembered is as it stood then, or newer. It counts for as
long as etcd goes on from there. One that is put back from a backup is stopped for that: everything is read again after
a look that failed, an election, or a revision that went back. Who never looked while it was stopped, and finds the same
cluster in the same term at a later revision, tells of a row as it was until somebody writes to it again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.attempt import ENDS
from orchestrator.store.etcd.client import EtcdClient
from orchestrator.store.etcd.rows import Keys, decode_open
from orchestrator.store.etcd.transaction import ranges
from orchestrator.store.store import OpenRow
from vm_migration.api.etcd import rpc_pb2 as api


@dataclass(frozen=True, slots=True)
class _Written:
    """A row, and the revision at which it was written last."""

    row: OpenRow
    revision: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was open in a cluster, in a term of its leader, at a revision; by attempt."""

    cluster: int = 0
    term: int = 0
    revision: int = 0
    rows: Mapping[str, _Written] = field(default_factory=dict)

    def until(self, now: api.ResponseHeader) -> Mapping[str, _Written]:
        """Return what may still stand so: nothing, where etcd may have been put back to an older state."""
        same = (now.cluster_id, now.raft_term) == (self.cluster, self.term) and now.revision >= self.revision
        return self.rows if same else {}

    def stands(self, now: api.ResponseHeader) -> bool:
        """Say whether nothing was written since."""
        return (now.cluster_id, now.raft_term, now.revision) == (self.cluster, self.term, self.revision)


class EtcdOpenRows:
    """Those of one site, as one process looks at them. For any thread: who is overtaken reads some once more."""

    def __init__(self, client: EtcdClient, keys: Keys) -> None:
        """Have seen nothing yet."""
        self._client = client
        self._keys = keys
        self._seen = _Seen()

    def rows(self) -> tuple[OpenRow, ...]:
        """Return what is looked at often of every open attempt, as it stands with the majority."""
        seen = self._seen
        try:
            now = self._client.range(api.RangeRequest(key=self._keys.version)).header
            if not seen.stands(now):
                seen = _Seen(now.cluster_id, now.raft_term, now.revision, self._read(seen.until(now)))
        except BaseException:
            self._seen = _Seen()  # when etcd answers again it may be another
            raise
        self._seen = seen
        return tuple(one.row for one in seen.rows.values())

    def _read(self, known: Mapping[str, _Written]) -> Mapping[str, _Written]:
        attempts = [one.value.decode() for one in self._client.below(self._keys.open)]
        answers = ranges(self._client, [self._if_written_since(one, known.get(one)) for one in attempts])
        rows = {}
        for attempt, answer in zip(attempts, answers, strict=True):
            row = _written(answer, known.get(attempt))
            if row is not None and row.row.phase not in ENDS:  # it may have ended since it was found among the open
                rows[attempt] = row
        return rows

    def _if_written_since(self, attempt: str, known: _Written | None) -> api.RangeRequest:
        since = 0 if known is None else known.revision + 1
        return api.RangeRequest(key=self._keys.attempt(attempt), min_mod_revision=since)


def _written(answer: api.RangeResponse, known: _Written | None) -> _Written | None:
    """Return a row as it was answered, or as it was known where it was not written since; None where it is gone."""
    if answer.kvs:
        return _Written(decode_open(answer.kvs[0].value), answer.kvs[0].mod_revision)
    return known if answer.count else None
