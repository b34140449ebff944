"""A daemon's gRPC server: bound, secured, healthy, and gone in good order.

::

    enter    bound -> SERVING              exit    NOT_SERVING -> running calls get `grace` seconds -> closed

Without TLS it serves loopback only. With TLS every client shows a certificate, and vm_migration.link.authorisation says
what that is good for; files that are replaced meanwhile count from the next connection on.
"""

import errno
import functools
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from vm_migration.errors import InternalError, InvalidInput, Refused
from vm_migration.link.address import join_address, refuse_plaintext, split_address
from vm_migration.link.audit import Audit, no_audit
from vm_migration.link.authorisation import authorise, authorise_nobody_in_particular
from vm_migration.link.boundary import Boundary, Guard
from vm_migration.link.renewal import Renewal, server_credentials
from vm_migration.link.server_limits import USUAL, ServerLimits, own_descriptors, server_options
from vm_migration.link.sparing_audit import SparingAudit
from vm_migration.link.tls import TlsFiles
from vm_migration.telemetry import logs

_log: Final = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """One service of a server: its full name, and what adds its handlers."""

    name: str
    register: Callable[[grpc.aio.Server], None]


class AgentServer:
    """Serves while the context is entered."""

    def __init__(
        self,
        address: str,
        tls: TlsFiles | None,
        services: Sequence[Service],
        *,
        also: Sequence[str] = (),
        grace: float = 5.0,
        audit: Audit = no_audit,
        limits: ServerLimits = USUAL,
    ) -> None:
        """Describe the server; `address` is `host:port`, port 0 takes a free one; `grace` is in seconds.

        `also` are further addresses that the same services are met at, such as one in the migration network.
        `audit` is told of every call that changes something, before its answer leaves.
        """
        self._configured = address
        self._also = tuple(also)
        self._tls = tls
        self._services = tuple(services)
        self._grace = grace
        self._audit = audit if audit is no_audit else SparingAudit(audit)
        self._limits = limits
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._address = ""

    @property
    def address(self) -> str:
        """Where it listens, with the real port."""
        if not self._address:
            raise InternalError("not-bound", "The server is not bound yet")
        return self._address

    @property
    def port(self) -> int:
        """The port it listens on."""
        return split_address(self.address)[1]

    async def __aenter__(self) -> Self:
        """Bind and serve.

        Raises:
            InvalidInput: Not an address of this machine, plaintext off loopback, or unusable TLS files.
            Refused: Another process listens there.
        """
        if self._tls is None:
            for address in (self._configured, *self._also):
                refuse_plaintext(address)
            server = self._draft(authorise_nobody_in_particular)
            add_port: Callable[[str], int] = server.add_insecure_port
            _log.warning("plaintext: whoever has a user on this host may do everything", address=self._configured)
        else:
            renewal = Renewal(self._tls)
            server = self._draft(functools.partial(authorise, renewal.material.identity.site))
            add_port = _secured(server, renewal)
        port = _bound(self._configured, add_port)
        for address in self._also:
            _bound(address, add_port)
        await server.start()
        self._server = server
        self._address = join_address(split_address(self._configured)[0], port)
        await self._announce(serving=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain, give running calls their grace, close."""
        if self._server is not None:
            await self.drain()
            await self._server.stop(self._grace)
            self._server = None

    async def drain(self) -> None:
        """Answer NOT_SERVING from now on; calls are still served, so that what is under way can end."""
        await self._announce(serving=False)

    def _draft(self, guard: Guard) -> grpc.aio.Server:
        boundary = Boundary(guard, self._audit, self._limits)
        server = grpc.aio.server(interceptors=[boundary], options=server_options(self._limits, own_descriptors()))
        for service in self._services:
            service.register(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [service.name for service in self._services]
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        return server

    async def _announce(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *(service.name for service in self._services)):
            await self._health.set(name, status)


def require_free(address: str) -> None:
    """Check that a server could listen at `host:port` now, and listen nowhere.

    Raises:
        InvalidInput: Not an address of this machine.
        Refused: Another process listens there.
    """
    host, port = split_address(address)
    _try_bind(address, host, port)


def _secured(server: grpc.aio.Server, renewal: Renewal) -> Callable[[str], int]:
    return lambda address: server.add_secure_port(address, server_credentials(renewal))


def _bound(address: str, add_port: Callable[[str], int]) -> int:
    """Bind through gRPC, which does not say why it failed: so ask the kernel first, which does."""
    host, port = split_address(address)
    numeric = _try_bind(address, host, port)
    try:
        bound = add_port(join_address(numeric, port))
    except RuntimeError:
        _try_bind(address, host, port)
        raise InternalError("cannot-listen", f"Listening on {address} failed", "See the log") from None
    return bound


def _try_bind(address: str, host: str, port: int) -> str:
    """Bind once and return the one numeric address meant: of a name's several, gRPC would be content with any."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except socket.gaierror:
        raise InvalidInput("unknown-host", f"{host} does not resolve", "Give an address of this host") from None
    except OSError as error:
        raise _refusal(address, error) from None
    return str(where[0])


def _refusal(address: str, error: OSError) -> Refused | InvalidInput:
    match error.errno:
        case errno.EADDRINUSE:
            return Refused(
                "address-in-use", f"Another process listens on {address}", "Stop it, or configure another port"
            )
        case errno.EACCES:
            return Refused(
                "port-not-permitted", f"This user may not listen on {address}", "Configure a port above 1023"
            )
        case _:
            return InvalidInput("not-local", f"{address} is not an address of this host", "Correct the address")
