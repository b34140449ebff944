"""What the two ends of a connection must agree on, or one of them hangs up on the other."""

from vm_migration.link.channel import CHANNEL_OPTIONS, KEEPALIVE, SERVER_OPTIONS

CLIENT = dict(CHANNEL_OPTIONS)
SERVER = dict(SERVER_OPTIONS)


def test_both_ends_keep_a_connection_alive_in_the_same_way() -> None:
    assert all(CLIENT[name] == SERVER[name] == value for name, value in KEEPALIVE)


def test_a_server_takes_no_ping_of_a_client_for_a_flood() -> None:
    """It answers pings that come faster than it allows with ENHANCE_YOUR_CALM, and hangs up."""
    fastest = min(CLIENT["grpc.keepalive_time_ms"], CLIENT["grpc.http2.min_time_between_pings_ms"])
    assert SERVER["grpc.http2.min_ping_interval_without_data_ms"] < fastest
    assert SERVER["grpc.keepalive_permit_without_calls"] == CLIENT["grpc.keepalive_permit_without_calls"] == 1
    assert CLIENT["grpc.http2.max_pings_without_data"] == 0


def test_a_silent_peer_is_given_up_when_keepalive_says_so_and_not_by_another_timer() -> None:
    assert CLIENT["grpc.http2.ping_timeout_ms"] >= CLIENT["grpc.keepalive_timeout_ms"]


def test_what_one_end_may_send_the_other_takes() -> None:
    for sender, receiver in ((CLIENT, SERVER), (SERVER, CLIENT)):
        assert sender["grpc.max_send_message_length"] <= receiver["grpc.max_receive_message_length"]
