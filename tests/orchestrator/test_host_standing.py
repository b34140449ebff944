"""What the two agents of a host say together, and when they are not taken for that host's."""

from orchestrator.host_standing import Heard, HostStanding, standing
from vm_migration.api.v1.types_pb2 import HostFacts, HostLoad
from vm_migration.daemon.host_offer import HostOffer
from vm_migration.errors import Unreachable

GIB = 1 << 30
OFFER = HostOffer(bulk_host="10.0.0.1", link_bytes_per_s=125_000_000)
SILENT = Unreachable("unreachable", "host-a (dest agent at 127.0.0.1:1) does not answer")


def facts(attempts: int = 0, *, host: str = "host-a", boot: str = "boot-1") -> HostFacts:
    return HostFacts(
        host=host,
        version="0.2.0",
        boot_id=boot,
        memory_budget_bytes=8 * GIB,
        memory_in_use_bytes=GIB,
        features=["direct"],
        offer=OFFER.message(),
        load=HostLoad(machines=2, memory_reserved_bytes=GIB, memory_free_bytes=6 * GIB, attempts=attempts),
    )


def test_what_leaves_is_the_source_agent_s_word_and_the_rest_the_destination_agent_s() -> None:
    assert standing("host-a", Heard(facts(3), facts(1))) == HostStanding(
        "host-a",
        (),
        "0.2.0",
        frozenset({"direct"}),
        8 * GIB,
        6 * GIB,
        2,
        attempts_out=3,
        attempts_in=1,
        offer=OFFER,
    )


def test_agents_of_0_1_0_tell_their_memory_and_nothing_of_what_they_offer() -> None:
    older = HostFacts(host="host-a", version="0.1.0", memory_budget_bytes=8 * GIB, memory_in_use_bytes=3 * GIB)
    found = standing("host-a", Heard(older, older))
    assert found == HostStanding("host-a", (), "0.1.0", frozenset(), 8 * GIB, 5 * GIB)


def test_a_host_that_is_over_its_budget_has_nothing_free() -> None:
    older = HostFacts(host="host-a", version="0.1.0", memory_budget_bytes=GIB, memory_in_use_bytes=3 * GIB)
    assert standing("host-a", Heard(older, older)).memory_free == 0


def test_without_its_destination_agent_a_host_is_silent_and_without_its_source_agent_it_is_not() -> None:
    (silent,) = standing("host-a", Heard(facts(), SILENT)).obstacles
    assert (silent.code, silent.message) == ("unreachable", SILENT.message)
    found = standing("host-a", Heard(SILENT, facts(1)))
    assert (found.obstacles, found.attempts_out, found.attempts_in) == ((), None, 1)


def test_an_agent_that_says_it_is_another_host_s_is_not_taken_for_this_one_s() -> None:
    (found,) = standing("host-a", Heard(facts(), facts(host="host-b"))).obstacles
    assert found.code == "other-host"
    assert found.message == "The dest agent that is configured for host-a says that it is of host-b"
    both = standing("host-a", Heard(facts(host="host-b"), facts(host="host-b"))).obstacles
    assert [one.code for one in both] == ["other-host", "other-host"]


def test_two_agents_of_one_name_on_two_machines_are_two_hosts() -> None:
    (found,) = standing("host-a", Heard(facts(boot="boot-1"), facts(boot="boot-2"))).obstacles
    assert found.code == "two-hosts-of-one-name"
    assert "boot-1 and boot-2" in found.message


def test_an_agent_that_does_not_tell_its_boot_is_not_a_second_host() -> None:
    assert standing("host-a", Heard(facts(boot=""), facts(boot="boot-2"))).obstacles == ()
