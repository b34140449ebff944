"""Spans through OpenTelemetry's SDK, sent by OTLP over gRPC; the one module that knows it.

A failure is told by its code or its type, never by its text, which may hold what the collector must not see.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Status, StatusCode, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from vm_migration.daemon.host_facts import VERSION
from vm_migration.errors import MigrationError
from vm_migration.link.tls import TlsFiles, channel_credentials
from vm_migration.telemetry.traces import Carried, Subject

_SECONDS: Final = 2
"""For one batch, and at the end for what is left: nobody waits for a collector."""
_MOST: Final = 2048
"""Spans that wait to be sent; more are lost."""
_attempt: ContextVar[str] = ContextVar("attempt of a root span")


class _AttemptIds(RandomIdGenerator):
    """Trace identifiers that are the UUIDs of attempts."""

    def generate_trace_id(self) -> int:
        """Return the identifier of the attempt whose root span is begun."""
        try:
            return uuid.UUID(_attempt.get()).int
        except (LookupError, ValueError):
            return super().generate_trace_id()


class OpenTelemetryTracer:
    """Sends spans to a collector; `close` must be called."""

    def __init__(self, process: str, endpoint: str, tls: TlsFiles | None) -> None:
        """Begin to send to `host:port`; `tls` None speaks plaintext.

        Raises:
            InvalidInput: The TLS files are unusable.
        """
        secure = None if tls is None else channel_credentials(tls.load())
        exporter = OTLPSpanExporter(
            endpoint=endpoint,
            insecure=secure is None,
            credentials=secure,
            timeout=_SECONDS,
        )
        resource = Resource.create({"service.name": process, "service.version": VERSION})
        self._provider: Final = TracerProvider(resource=resource, id_generator=_AttemptIds(), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=_MOST))
        self._tracer: Final = self._provider.get_tracer("viaduct", VERSION)
        self._propagator: Final = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Send what is left, for a moment; blocks for as long."""
        self._provider.force_flush(_SECONDS * 1000)
        self._provider.shutdown()

    def carried(self) -> Carried:
        """Return what a call that is made now carries."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return tuple(carrier.items())

    def span(self, name: str, subject: Subject, carrier: Mapping[str, str]) -> AbstractContextManager[None]:
        """Have everything inside be one span."""
        return self._span(name, subject, self._propagator.extract(carrier) if carrier else None)

    @contextmanager
    def _span(self, name: str, subject: Subject, around: Context | None) -> Iterator[None]:
        with self._root_of(subject):
            made = self._tracer.start_span(name, around, attributes=_attributes(subject))
        with use_span(made, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield
            except BaseException as error:
                made.set_status(Status(StatusCode.ERROR, _told(error)))
                raise

    def begin(self, name: str, subject: Subject) -> Callable[[], None]:
        """Begin a span, and return what ends it."""
        with self._root_of(subject):
            return self._tracer.start_span(name, attributes=_attributes(subject)).end

    @contextmanager
    def _root_of(self, subject: Subject) -> Iterator[None]:
        token = _attempt.set(str(subject.get("attempt", "")))
        try:
            yield
        finally:
            _attempt.reset(token)


def _attributes(subject: Subject) -> Mapping[str, str | int]:
    return {f"viaduct.{key}": value for key, value in subject.items()}


def _told(error: BaseException) -> str:
    return error.code if isinstance(error, MigrationError) else type(error).__name__
