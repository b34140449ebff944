"""The policy of a request: read with all its faults at once, and as the journal keeps it."""

import pytest

from source_agent.terms import MAX_STREAMS, Terms, decode, encode, terms_of
from vm_migration.api.v1.types_pb2 import (
    ON_TIMEOUT_CANCEL,
    ON_TIMEOUT_FORCE,
    VERIFY_MODE_AUTO,
    VERIFY_MODE_FULL,
    VERIFY_MODE_NONE,
    Policy,
    VerifyMode,
)
from vm_migration.errors import InvalidInput
from vm_migration.transfer.convergence import OnTimeout
from vm_migration.transfer.profiles import BALANCED, PROFILES


def policy(*, verify: VerifyMode.ValueType = VERIFY_MODE_AUTO, streams: int = 1) -> Policy:
    return Policy(
        downtime_limit_ms=300,
        timeout_ms=60_000,
        on_timeout=ON_TIMEOUT_CANCEL,
        verify=verify,
        streams=streams,
        transport="grpc",
        compression="auto",
    )


@pytest.mark.parametrize(
    ("mode", "name"), [(VERIFY_MODE_AUTO, "auto"), (VERIFY_MODE_FULL, "full"), (VERIFY_MODE_NONE, "none")]
)
def test_terms_come_back_from_the_journal_as_they_were(mode: VerifyMode.ValueType, name: str) -> None:
    terms = terms_of(policy(verify=mode, streams=3))
    assert (terms.verify, terms.streams, terms.downtime_limit_ms) == (name, 3, 300)
    assert decode(encode(terms)) == terms


@pytest.mark.parametrize(("asked", "held"), [("", "auto"), ("auto", "auto"), ("none", "none"), ("zstd", "zstd")])
def test_terms_carry_the_compression_and_what_an_earlier_agent_wrote_is_auto(asked: str, held: str) -> None:
    wanted = policy()
    wanted.compression = asked
    assert terms_of(wanted).compression == held
    earlier = '{"downtime_limit_ms":1,"timeout_ms":1,"force_on_timeout":false}'
    assert decode(earlier).compression == "auto"


def test_an_order_of_no_streams_is_one() -> None:
    assert terms_of(policy(streams=0)).streams == 1


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_a_profile_and_a_bandwidth_reach_the_decision_through_the_journal(name: str) -> None:
    asked = policy()
    asked.profile, asked.max_bandwidth_bytes_per_s = name, 5
    seen = decode(encode(terms_of(asked))).convergence()
    assert (seen.profile, seen.max_bandwidth_bytes_per_s) == (PROFILES[name], 5)


def test_a_profile_that_is_left_open_or_a_later_versions_is_balanced() -> None:
    assert terms_of(policy()).convergence().profile is BALANCED
    written_later = encode(terms_of(policy())).replace('"balanced"', '"frantic"')
    assert decode(written_later).convergence().profile is BALANCED


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        terms_of(Policy(transport="rdma", compression="zip", profile="frantic", streams=MAX_STREAMS + 1))
    assert caught.value.code == "invalid-policy"
    for name in ("downtime_limit_ms", "timeout_ms", "on_timeout", "verify", "rdma", "zip", "frantic", "streams"):
        assert name in caught.value.message


def test_the_switchover_decision_sees_what_it_looks_at() -> None:
    seen = Terms(downtime_limit_ms=5, timeout_ms=7, force_on_timeout=True).convergence()
    assert (seen.downtime_limit_ms, seen.timeout_ms, seen.on_timeout) == (5, 7, OnTimeout.FORCE)
    forced = policy()
    forced.on_timeout = ON_TIMEOUT_FORCE
    assert terms_of(forced).force_on_timeout
