"""A collector of OpenTelemetry in this process: takes spans over OTLP, and keeps them."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent

SECONDS = 20.0


@dataclass(frozen=True)
class Span:
    """One span, as its process told it."""

    process: str
    name: str
    trace: str
    span: str
    parent: str
    attributes: Mapping[str, str | int]
    failed: str
    started_ns: int
    ended_ns: int


class Collector:
    """Keeps what comes."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._came = threading.Condition()

    def export(self, request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        del context
        with self._came:
            for resource in request.resource_spans:
                process = str(_values(resource.resource.attributes)["service.name"])
                self._spans += [_span(process, one) for scope in resource.scope_spans for one in scope.spans]
            self._came.notify_all()
        return ExportTraceServiceResponse()

    def spans(self, enough: Callable[[list[Span]], bool]) -> list[Span]:
        """Return what has come once that is enough."""
        with self._came:
            assert self._came.wait_for(lambda: enough(self._spans), SECONDS), self._spans
            return list(self._spans)


@contextlib.contextmanager
def collecting(credentials: grpc.ServerCredentials | None = None) -> Iterator[tuple[str, Collector]]:
    """Have a collector listen on loopback, and tell where."""
    collector = Collector()
    handler = grpc.unary_unary_rpc_method_handler(
        collector.export, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}", collector
    finally:
        server.stop(0).wait()


def _span(process: str, one: Sent) -> Span:
    return Span(
        process=process,
        name=one.name,
        trace=one.trace_id.hex(),
        span=one.span_id.hex(),
        parent=one.parent_span_id.hex(),
        attributes=_values(one.attributes),
        failed=one.status.message,
        started_ns=one.start_time_unix_nano,
        ended_ns=one.end_time_unix_nano,
    )


def _values(attributes: Sequence[KeyValue]) -> dict[str, str | int]:
    return {
        one.key: one.value.string_value if one.value.HasField("string_value") else one.value.int_value
        for one in attributes
    }
