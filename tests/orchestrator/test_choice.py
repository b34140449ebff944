"""Which host is chosen: only one that may be, the one with most room, and the same one whatever the order."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from hypothesis import assume, example, given
from hypothesis import strategies as st

from orchestrator.attempt import Notice
from orchestrator.choice import Choice, Considered, Known, after_arrival, choose
from orchestrator.host_standing import HostStanding
from orchestrator.suitability import Needs, needs_of, unknown
from vm_migration.api.v1.types_pb2 import MachineStatus
from vm_migration.daemon.host_facts import VERSION
from vm_migration.daemon.host_offer import HostOffer
from vmm.assembly.machine_state import STATE_FORMAT
from vmm.assembly.specification import check_specification

GIB = 1 << 30
NIC = check_specification(
    {
        "name": "m",
        "memory": {"size": "1GiB"},
        "device": [{"name": "nic0", "model": "nic", "address": "00:04.0"}],
    },
    "test",
)
NEEDS = Needs("host-s", GIB, NIC, VERSION, STATE_FORMAT)
IDLE = HostStanding(
    "host-a", (), VERSION, frozenset({"direct"}), 8 * GIB, 8 * GIB, 0, attempts_out=0, attempts_in=0, offer=HostOffer()
)
SILENT = Notice("unreachable", "It does not answer")
COUNTS = st.none() | st.integers(0, 5)
OFFERS = st.none() | st.builds(
    HostOffer,
    device_models=st.sampled_from([frozenset({"nic", "qat"}), frozenset({"qat"})]),
    host_dirty_tracking=st.booleans(),
    state_format=st.sampled_from([STATE_FORMAT, STATE_FORMAT + 1]),
    link_bytes_per_s=st.sampled_from([0, 125_000_000, 1_250_000_000]),
)


@st.composite
def standing(draw: st.DrawFn, host: str) -> HostStanding:
    budget = draw(st.none() | st.integers(1, 16).map(GIB.__mul__))
    return HostStanding(
        host,
        draw(st.sampled_from([(), (), (), (SILENT,)])),
        draw(st.sampled_from([VERSION, VERSION, "0.1.0", "9.0.0", None])),
        draw(st.sampled_from([frozenset(), frozenset({"direct"})])),
        budget,
        None if budget is None else draw(st.none() | st.integers(0, budget)),
        draw(COUNTS),
        attempts_out=draw(COUNTS),
        attempts_in=draw(COUNTS),
        offer=draw(OFFERS),
    )


@st.composite
def fleets(draw: st.DrawFn) -> list[HostStanding]:
    return [draw(standing(f"host-{letter}")) for letter in "abcdef"[: draw(st.integers(0, 6))]]


KNOWN = st.builds(
    Known,
    excluded=st.dictionaries(st.sampled_from(["host-a", "host-c"]), st.just("In maintenance"), max_size=1),
    told=st.dictionaries(st.sampled_from(["host-b", "host-d"]), st.just((Notice("no-memory", "none"),)), max_size=1),
    transports=st.dictionaries(st.sampled_from(["host-a", "host-b"]), st.just("direct"), max_size=2),
    taking=st.dictionaries(st.sampled_from(["host-a", "host-d"]), st.integers(0, 9), max_size=2),
)


def hosts_of(choice: Choice) -> list[str]:
    return [one.host for one in choice.considered]


def of(choice: Choice, host: str) -> Considered:
    return next(one for one in choice.considered if one.host == host)


def equal_hosts(*names: str) -> list[HostStanding]:
    return [replace(IDLE, host=name) for name in names]


@given(fleets(), KNOWN)
def test_a_host_that_does_not_fit_or_may_not_be_chosen_never_is(fleet: list[HostStanding], known: Known) -> None:
    choice = choose(NEEDS, fleet, known)
    for host in fleet:
        one = of(choice, host.host)
        short = host.memory_free is not None and host.memory_free < NEEDS.ram_bytes
        lacking = host.offer is not None and "nic" not in host.offer.device_models
        lacking |= known.transports.get(host.host) == "direct" and "direct" not in host.features
        apart = host.version == "9.0.0" or (host.offer is not None and host.offer.state_format != STATE_FORMAT)
        stands = host.obstacles or host.host in known.excluded or known.told.get(host.host)
        if short or lacking or apart or stands:
            assert not one.passes
        assert one.passes != bool(one.obstacles)
    assert sum(one.verdict == "chosen" for one in choice.considered) == any(one.passes for one in choice.considered)


@given(fleets(), KNOWN, st.randoms(use_true_random=False))
def test_the_order_in_which_hosts_come_changes_nothing(fleet: list[HostStanding], known: Known, random: Random) -> None:
    shuffled = list(fleet)
    random.shuffle(shuffled)
    assert choose(NEEDS, shuffled, known) == choose(NEEDS, fleet, known)


@given(fleets(), KNOWN)
def test_every_host_is_told_of_once_and_those_that_pass_first(fleet: list[HostStanding], known: Known) -> None:
    choice = choose(NEEDS, fleet, known)
    assert sorted(hosts_of(choice)) == [one.host for one in fleet]
    passes = [one.passes for one in choice.considered]
    assert passes == sorted(passes, reverse=True)
    assert choice.chosen == (hosts_of(choice)[0] if any(passes) else None)


@given(fleets(), KNOWN, st.integers(0, 16 * GIB))
def test_more_free_memory_never_makes_a_host_lose(fleet: list[HostStanding], known: Known, more: int) -> None:
    chosen = choose(NEEDS, fleet, known).chosen
    assume(chosen is not None)
    richer = [_with_more(one, more) if one.host == chosen else one for one in fleet]
    assert choose(NEEDS, richer, known).chosen == chosen


def _with_more(host: HostStanding, more: int) -> HostStanding:
    if host.memory_free is None or host.memory_budget is None:
        return host
    return replace(host, memory_free=min(host.memory_budget, host.memory_free + more))


@given(fleets(), KNOWN)
def test_an_attempt_less_never_makes_a_host_lose(fleet: list[HostStanding], known: Known) -> None:
    chosen = choose(NEEDS, fleet, known).chosen
    assume(chosen is not None)
    idler = [
        replace(one, attempts_out=one.attempts_out and one.attempts_out - 1) for one in fleet if one.host == chosen
    ]
    assert choose(NEEDS, [one for one in fleet if one.host != chosen] + idler, known).chosen == chosen


@given(fleets(), KNOWN)
def test_a_host_that_says_all_goes_before_one_that_does_not(fleet: list[HostStanding], known: Known) -> None:
    said = [not one.unknown for one in choose(NEEDS, fleet, known).considered if one.passes]
    assert said == sorted(said, reverse=True)


@given(fleets(), KNOWN, standing("host-z"))
def test_a_host_that_cannot_take_the_machine_changes_nothing_for_the_others(
    fleet: list[HostStanding], known: Known, other: HostStanding
) -> None:
    assume(not of(choose(NEEDS, [other], known), "host-z").passes)
    choice = choose(NEEDS, fleet, known)
    with_it = [one for one in choose(NEEDS, [*fleet, other], known).considered if one.host != "host-z"]
    assert tuple(with_it) == choice.considered


@given(st.integers(1, 8), st.integers(1, 3))
@example(3, 2)
def test_machines_that_are_placed_one_after_another_spread_over_equal_hosts(count: int, each: int) -> None:
    fleet = equal_hosts(*(f"host-{number}" for number in range(count)))
    taken: list[str] = []
    for _ in range(count * each):
        chosen = choose(NEEDS, fleet).chosen
        assert chosen is not None
        taken.append(chosen)
        fleet = [after_arrival(one, GIB) if one.host == chosen else one for one in fleet]
    assert {taken.count(host.host) for host in fleet} == {each}


def test_the_host_with_the_larger_free_share_is_chosen() -> None:
    small, large = (
        replace(IDLE, host="host-b", memory_budget=4 * GIB, memory_free=4 * GIB),
        replace(IDLE, host="host-a", memory_budget=64 * GIB, memory_free=8 * GIB),
    )
    assert choose(NEEDS, [small, large]).chosen == "host-b"


def test_a_host_whose_link_is_busy_is_passed_over_for_one_with_half_the_memory() -> None:
    busy, half = equal_hosts("host-a", "host-b")
    busy, half = replace(busy, attempts_out=2, attempts_in=1), replace(half, memory_free=4 * GIB)
    choice = choose(NEEDS, [busy, half])
    assert choice.chosen == "host-b"
    figures = of(choice, "host-a").figures
    assert (figures.free_share_after, figures.link_share, figures.room) == (7 / 8, 1 / 4, 7 / 32)


def test_what_the_store_knows_to_be_on_its_way_counts_before_a_host_has_heard_of_it() -> None:
    hosts = equal_hosts("host-a", "host-b")
    assert choose(NEEDS, hosts, Known(taking={"host-a": 1})).chosen == "host-b"
    told = [replace(one, attempts_in=2) for one in hosts]  # and is not counted twice once it has
    assert of(choose(NEEDS, told, Known(taking={"host-a": 1})), "host-a").figures.attempts_in == 2


def test_a_faster_link_counts_where_every_host_says_how_fast_its_is() -> None:
    hosts = [
        replace(one, offer=HostOffer(link_bytes_per_s=rate))
        for one, rate in zip(equal_hosts("host-a", "host-b"), (125_000_000, 1_250_000_000), strict=True)
    ]
    assert choose(NEEDS, hosts).chosen == "host-b"
    unsaid = [hosts[0], replace(hosts[1], offer=HostOffer()), replace(hosts[0], host="host-c")]
    assert choose(NEEDS, unsaid).chosen == "host-a"


def test_equal_hosts_go_by_fewer_machines_and_then_by_name() -> None:
    first, second, third = equal_hosts("host-a", "host-b", "host-c")
    assert choose(NEEDS, [third, second, first]).chosen == "host-a"
    assert choose(NEEDS, [replace(first, machines=4), third, second]).chosen == "host-b"


def test_a_host_of_0_1_0_is_chosen_only_where_no_other_is() -> None:
    older = HostStanding("host-a", (), "0.1.0", frozenset({"direct"}), 64 * GIB, 64 * GIB)
    newer = replace(IDLE, host="host-b", memory_free=2 * GIB, attempts_in=3)
    assert choose(NEEDS, [older, newer]).chosen == "host-b"
    choice = choose(NEEDS, [older, replace(newer, memory_free=0)])
    assert choice.chosen == "host-a"
    assert of(choice, "host-a").unknown == ("devices and vIOMMUs", "attempts that leave", "attempts that arrive")


def test_nothing_is_chosen_from_nothing() -> None:
    assert choose(NEEDS, []) == Choice(())
    hosts = equal_hosts("host-a", "host-b")
    choice = choose(NEEDS, hosts, Known(excluded={"host-a": "In maintenance", "host-b": "Not asked for"}))
    assert choice.chosen is None
    assert [(one.verdict, one.obstacles[0].message) for one in choice.considered] == [
        ("excluded", "In maintenance"),
        ("excluded", "Not asked for"),
    ]


def _codes(notices: Sequence[Notice]) -> list[str]:
    return [one.code for one in notices]


def test_everything_that_stands_against_a_host_is_told_at_once_and_once() -> None:
    host = replace(
        IDLE, memory_free=0, version="9.0.0", offer=HostOffer(device_models=frozenset(), host_dirty_tracking=False)
    )
    told = {"host-a": (Notice("no-memory", "It said so itself"),)}
    choice = choose(NEEDS, [host], Known(told=told, transports={"host-a": "sealed"}))
    assert _codes(of(choice, "host-a").obstacles) == [
        "no-memory",
        "version",
        "device-not-offered",
        "iommu-not-offered",
        "transport-not-offered",
    ]
    assert of(choice, "host-a").obstacles[0].message == "It said so itself"


def test_of_a_silent_host_nothing_but_that_is_told() -> None:
    silent = HostStanding("host-a", (SILENT,))
    assert _codes(of(choose(NEEDS, [silent], Known(transports={"host-a": "direct"})), "host-a").obstacles) == [
        "unreachable"
    ]
    assert unknown(silent) == ()


def test_what_a_machine_needs_is_read_from_what_its_host_tells() -> None:
    status = MachineStatus(host="host-s", ram_bytes=GIB, specification_json=NIC.to_json().decode())
    source = replace(IDLE, host="host-s")
    assert needs_of(status, source) == NEEDS
    status.specification_json = '{"of": "a later version"}'
    older = HostStanding("host-s", (SILENT,))
    assert needs_of(status, older) == Needs("host-s", GIB)
    assert choose(needs_of(status, older), [replace(IDLE, version="9.0.0")]).chosen == "host-a"
