"""What gRPC says of a connection that did not come about, and what people are told of it."""

import grpc
import grpc.aio
import pytest

from vm_migration.link.status import from_rpc_error

_EMPTY = grpc.aio.Metadata()


@pytest.mark.parametrize(
    ("details", "code"),
    [
        ("failed to connect to all addresses; last error: UNAVAILABLE: Handshake read failed", "unreachable"),
        ("failed to connect to all addresses; last error: UNKNOWN: tcp handshaker shutdown", "unreachable"),
        ("failed to connect to all addresses; last error: Connection refused", "unreachable"),
        ("Ssl handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED", "tls"),
        ("Peer name host-b is not in peer certificate", "tls"),
    ],
)
def test_a_handshake_that_was_cut_off_is_silence_and_one_that_was_refused_is_not(details: str, code: str) -> None:
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, _EMPTY, _EMPTY, details=details)
    assert from_rpc_error(error, "host-b").code == code
