"""Topics, the broker's URL, and what is kept how long."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm_migration.daemon.broker_url import BrokerTls, parse_broker
from vm_migration.daemon.publication import Publication
from vm_migration.daemon.status_topics import Topics
from vm_migration.errors import InvalidInput


def test_topics_are_the_contract_s() -> None:
    topics = Topics("home")
    assert topics.orchestrator("cli-host-a-42") == "viaduct/v1/home/orchestrator/cli-host-a-42/status"
    assert topics.agent("host-a", "source") == "viaduct/v1/home/agent/host-a/source/status"
    assert topics.state("a") == "viaduct/v1/home/migration/a/state"
    assert topics.progress("a") == "viaduct/v1/home/migration/a/progress"
    assert topics.event("a") == "viaduct/v1/home/migration/a/event"
    assert topics.owner("qat-guest") == "viaduct/v1/home/machine/qat-guest/owner"


@settings(max_examples=100)
@given(st.text(max_size=12))
def test_a_name_is_one_level_or_refused(name: str) -> None:
    try:
        topic = Topics("home").owner(name)
    except InvalidInput:
        assert not name or name[0] == "$" or any(sign in "/+#" or not sign.isprintable() for sign in name)
    else:
        assert topic.split("/") == ["viaduct", "v1", "home", "machine", name, "owner"]


def test_broker_urls() -> None:
    plain = parse_broker("mqtt://broker")
    assert (plain.host, plain.port, plain.tls) == ("broker", 1883, None)
    secured = parse_broker("mqtts://[::1]:9999", user="anna")
    assert (secured.host, secured.port, secured.tls, secured.user) == ("::1", 9999, BrokerTls(), "anna")
    assert str(parse_broker("mqtts://broker")) == "mqtts://broker:8883"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker",
        "http://broker",
        "mqtt://",
        "mqtt://broker:x",
        "mqtt://broker/path",
        "mqtt://a:b@broker",
        "mqtt://[::1",
    ],
)
def test_bad_broker_urls(url: str) -> None:
    with pytest.raises(InvalidInput):
        parse_broker(url)


@settings(max_examples=50)
@given(st.floats(0, 1e10), st.floats(0, 1e10))
def test_what_is_past_its_time_has_no_second_left(expires_at: float, now: float) -> None:
    seconds = Publication("t", b"x", retain=True, expires_at=expires_at).seconds_left(now)
    assert seconds is not None
    assert seconds >= 0
    assert (seconds == 0) == (expires_at - now < 1)


def test_clearing_takes_the_same_topic() -> None:
    cleared = Publication("t", b"x", retain=True, expires_at=5.0).cleared()
    assert cleared.clears
    assert (cleared.topic, cleared.payload, cleared.expires_at) == ("t", b"", None)
