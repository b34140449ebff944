"""Calls to the site's etcd: to the members in turn, each call with a deadline, and a rest after all have failed.

Where a call fails after the TLS files were replaced, connections are opened anew with those that are there now.

A call that failed may have happened. Every write is a transaction that compares what it was decided on, so that one
which is made twice is decided again on what stands then.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

import grpc

from orchestrator.store.store import STORE_UNUSABLE
from vm_migration.api.etcd import rpc_pb2 as api
from vm_migration.api.etcd.rpc_pb2_grpc import KVStub, LeaseStub
from vm_migration.daemon.etcd_place import EtcdPlace, EtcdTls
from vm_migration.errors import InvalidInput, Refused
from vm_migration.link.changed_files import NOT_RENEWED, Followed
from vm_migration.link.channel import CHANNEL_OPTIONS
from vm_migration.link.tls import Stamp, refuse_open_secret, stamp_of
from vm_migration.telemetry import logs

CALL_SECONDS: Final = 2.0
REST_SECONDS: Final = 1.0
PAGE: Final = 200

_Answer = TypeVar("_Answer")
_log: Final = logs.get(__name__)
_PASSING: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""Another member may answer: this one is away, or has no majority with it."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the cluster."""

    address: str
    channel: grpc.Channel
    keys: KVStub
    leases: LeaseStub


@dataclass(frozen=True, slots=True)
class _Rest:
    """Until when nothing is asked, and why: many callers that each wait in vain would keep everybody waiting."""

    until: float = 0.0
    why: str = ""


class EtcdClient:
    """Speaks to whichever member answers. Calls block, and may be made from any thread."""

    def __init__(
        self, place: EtcdPlace, *, deadline: float = CALL_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Describe the connections; nothing is sent before the first call. `deadline` and `clock` are in seconds.

        Raises:
            InvalidInput: The TLS files cannot be used.
        """
        self.place = place
        self._deadline = deadline
        self._clock = clock
        self._files: Final = Followed(_stamp(place.tls))
        self._members = _opened(place)
        self._before: tuple[Member, ...] = ()
        self._at = 0
        self._rest = _Rest()

    def close(self) -> None:
        """Close the connections."""
        for member in (*self._members, *self._before):
            member.channel.close()

    def commit(self, request: api.TxnRequest) -> api.TxnResponse:
        """Make a transaction: what it writes is written if everything that it compares is so.

        Raises:
            Refused: No member answered in time; it may have happened. Code `store-unusable`, as for all calls.
        """
        return self._ask(lambda member: member.keys.Txn(request, timeout=self._deadline))

    def range(self, request: api.RangeRequest) -> api.RangeResponse:
        """Read keys as they stand with the majority."""
        return self._ask(lambda member: member.keys.Range(request, timeout=self._deadline))

    def below(self, prefix: bytes, *, limit: int = 0) -> Iterator[api.KeyValue]:
        """Yield the keys that start so, in order, all as they stood at one moment, at most `limit` where that is not 0.

        They are read in pages, so that no answer outgrows what a message may hold.
        """
        start, end, revision, left = prefix, after(prefix), 0, limit
        while True:
            size = min(PAGE, left) if left else PAGE
            page = self.range(api.RangeRequest(key=start, range_end=end, limit=size, revision=revision))
            yield from page.kvs
            left -= len(page.kvs) if limit else 0
            if not page.more or (limit and not left):
                return
            start, revision = page.kvs[-1].key + b"\0", revision or page.header.revision

    def grant(self, seconds: int) -> int:
        """Return a lease that ends so many seconds after it was kept alive last."""
        request = api.LeaseGrantRequest(TTL=seconds)
        return self._ask(lambda member: member.leases.LeaseGrant(request, timeout=self._deadline)).ID

    def keep_alive(self, lease: int) -> bool:
        """Keep a lease alive; say whether it was."""

        def once(member: Member) -> bool:
            asked = iter((api.LeaseKeepAliveRequest(ID=lease),))
            answers = member.leases.LeaseKeepAlive(asked, timeout=self._deadline)
            try:
                return next(answers).TTL > 0
            finally:
                answers.cancel()

        return self._ask(once)

    def revoke(self, lease: int) -> None:
        """End a lease, and what hangs on it."""
        request = api.LeaseRevokeRequest(ID=lease)
        self._ask(lambda member: member.leases.LeaseRevoke(request, timeout=self._deadline))

    def _ask(self, once: Callable[[Member], _Answer]) -> _Answer:
        if self._clock() < self._rest.until:
            raise self._unusable(self._rest.why)
        causes = []
        for _ in self._members:
            at = self._at
            member = self._members[at]
            try:
                answer = once(member)
            except grpc.RpcError as error:
                code, details = _told(error)
                if code not in _PASSING:
                    raise self._unusable(f"{member.address} says {code.name}: {details}") from None
                causes.append(f"{member.address}: {_cause(code, details, self._deadline)}")
                self._at = (at + 1) % len(self._members)
                self._renew()
            else:
                return answer
        self._rest = _Rest(self._clock() + REST_SECONDS, "; ".join(causes))
        raise self._unusable(self._rest.why)

    def _renew(self) -> None:
        """Open connections anew where the TLS files are others by now; calls under way go on over those of before."""
        stamp, now = _stamp(self.place.tls), self._clock()
        if not self._files.due(stamp, now):
            return
        try:
            fresh = _opened(self.place)
        except InvalidInput as error:
            if self._files.failed(stamp, now):
                _log.warning(NOT_RENEWED, code=error.code, reason=error.message)
            return
        self._files.took(stamp)
        for member in self._before:
            member.channel.close()
        self._before, self._members = self._members, fresh

    def _unusable(self, why: str) -> Refused:
        hint = "See that most of its members run and answer each other (etcdctl endpoint status); what runs goes on"
        return Refused(STORE_UNUSABLE, f"The store {self.place} cannot be used: {why}", hint)


def after(prefix: bytes) -> bytes:
    """Return the end of the range of all keys that start so."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _opened(place: EtcdPlace) -> tuple[Member, ...]:
    return tuple(_member(address, place.tls) for address in place.addresses)


def _stamp(tls: EtcdTls | None) -> Stamp:
    """Return what tells whether the files are those of another time; where one is missing, opening says which."""
    if tls is None:
        return ()
    try:
        return stamp_of(path for path in (tls.ca, tls.certificate, tls.key) if path is not None)
    except OSError:
        return ()


def _member(address: str, tls: EtcdTls | None) -> Member:
    if tls is None:
        channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
    else:
        named = () if tls.name is None else (("grpc.ssl_target_name_override", tls.name),)
        channel = grpc.secure_channel(address, _credentials(tls), options=(*CHANNEL_OPTIONS, *named))
    return Member(address, channel, KVStub(channel), LeaseStub(channel))


def _credentials(tls: EtcdTls) -> grpc.ChannelCredentials:
    if tls.key is not None:
        refuse_open_secret(tls.key)
    try:
        ca, certificate, key = (
            None if path is None else path.read_bytes() for path in (tls.ca, tls.certificate, tls.key)
        )
    except OSError as error:
        raise InvalidInput("tls-file", f"{error.filename} cannot be read: {error.strerror}", "Check [etcd]") from None
    return grpc.ssl_channel_credentials(ca, key, certificate)


def _told(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Return what a failed call says; what is raised by calls has both, which the stubs' type does not say."""
    if isinstance(error, grpc.Call):
        return error.code(), error.details() or ""
    return grpc.StatusCode.UNKNOWN, str(error)


def _cause(code: grpc.StatusCode, details: str, deadline: float) -> str:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer within {deadline:g} s, as of one that has lost the majority"
    if details.startswith("failed to connect"):  # gRPC names the address again, and every layer that it came through
        details = details.rpartition(": ")[2]
    return details.partition("\n")[0][:200] or "does not answer"
