"""What is expected, as preflight tells it: with bounds, under each profile, and beside what came."""

import pytest

from orchestrator.agents import Agents
from orchestrator.policy import MigrationPolicy, Profile
from orchestrator.preflight import Candidate, preflight
from orchestrator.preflight_document import preflight_document
from orchestrator.render.forecast import beside_outcome, came, foretold, in_all
from orchestrator.result import expected_document
from tests.orchestrator.fake_agents import FakeSite
from tests.orchestrator.test_viaduct_command import Run, config, viaduct
from vm_migration.api.v1 import types_pb2
from vm_migration.transfer.forecast import PREPARE_SPREAD

__all__ = ["config", "viaduct"]  # fixtures


def expected(profile: str, *, total_ms: float = 2000, converges: bool = True) -> types_pb2.Expected:
    return types_pb2.Expected(
        total_ms=total_ms,
        prepare_ms=1000,
        downtime_ms=120,
        rounds=3,
        total_low_ms=total_ms * 0.8,
        total_high_ms=total_ms * 1.5,
        downtime_low_ms=90,
        downtime_high_ms=180,
        converges=converges,
        profile=profile,
        link_bytes_per_s=4e8,
        dirty_bytes_per_s=6e7,
    )


PROFILES = [expected("gentle", converges=False), expected("balanced"), expected("urgent", total_ms=1500)]


async def candidate(site: FakeSite, measure_ms: int = 0, profile: Profile = "balanced") -> Candidate:
    machine = site.world.add("guest", "host-a")
    status = types_pb2.MachineStatus(machine=machine, name="guest", host="host-a")
    async with Agents(site.addresses, None) as agents:
        found = await preflight(agents, status, "host-b", MigrationPolicy(profile=profile), measure_ms=measure_ms)
    document = preflight_document(found)
    assert len(document.candidates[0].profiles) == len(found.candidates[0].profiles)
    return found.candidates[0]


async def test_every_profile_takes_over_how_long_the_destination_says_it_prepares(site: FakeSite) -> None:
    site.world.script.profiles = PROFILES
    found = await candidate(site)
    assert [each.profile for each in found.profiles] == ["gentle", "balanced", "urgent"]
    for told, asked in zip(found.profiles, PROFILES, strict=True):
        assert told.prepare_ms == 300  # of the fake destination
        assert told.total_ms == asked.total_ms - 700
        assert told.total_low_ms == pytest.approx(asked.total_low_ms - 700 * (1 - PREPARE_SPREAD))
        assert told.total_high_ms == pytest.approx(asked.total_high_ms - 700 * (1 + PREPARE_SPREAD))
        assert told.total_low_ms <= told.total_ms <= told.total_high_ms


async def test_a_migration_that_only_asks_whether_it_may_measures_nothing(site: FakeSite) -> None:
    await candidate(site)
    await candidate(site, measure_ms=250)
    assert site.world.measured_ms == [0, 250]


async def test_a_migration_measures_once_what_its_result_then_expects(viaduct: Run, site: FakeSite) -> None:
    site.world.add("guest", "host-a")
    for to, words in (("host-b", ()), ("host-a", ("--measure", "200ms")), ("host-b", ("--measure", "0s"))):
        assert (await viaduct("migrate", "guest", "--to", to, *words, "--json")).exit_code == 0
    assert site.world.measured_ms == [1000, 200, 0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["migrate", "guest", "--to", "host-b", "--measure", "99ms"], "99ms is not within 100ms and 10s, nor 0s"),
        (["preflight", "guest", "--to", "host-b", "--measure", "11s"], "11s is not within 100ms and 10s, nor 0s"),
        (["preflight", "guest", "--to", "host-b", "--measure", "1ns"], "1ns is not within 100ms and 10s, nor 0s"),
        (["machine", "dirty-rate", "guest", "--window", "9ms"], "9ms is not within 10ms and 10s"),
        (["machine", "dirty-rate", "guest", "--window", "0s"], "0s is not within 10ms and 10s"),
    ],
)
async def test_a_window_out_of_bounds_is_refused_before_anybody_is_asked(
    viaduct: Run, site: FakeSite, words: list[str], said: str
) -> None:
    site.world.add("guest", "host-a")
    (await viaduct(*words)).complains(2, said)
    assert (site.world.measured_ms, site.world.calls) == ([], [])


async def test_who_chooses_among_hosts_does_not_have_each_of_them_measured(viaduct: Run, site: FakeSite) -> None:
    site.world.add("guest", "host-a")
    assert (await viaduct("migrate", "guest", "--to", "any", "--json")).exit_code == 0
    assert site.world.measured_ms == [0, 1000]


@pytest.mark.parametrize("profile", ["gentle", "balanced", "urgent"])
async def test_a_source_that_hears_of_no_profile_is_named(site: FakeSite, profile: Profile) -> None:
    site.world.script.profiles = []
    found = await candidate(site, measure_ms=250, profile=profile)
    told = {one.code: one.message for one in found.warnings}
    assert "host-a" in told["dirty-rate-assumed"]
    assert ("profile-unheard" in told) is (profile != "gentle")
    assert {one.code for one in (await candidate(site, profile="gentle")).warnings} == {"slow-link"}
    site.world.script.profiles = PROFILES
    assert {one.code for one in (await candidate(site, measure_ms=250, profile=profile)).warnings} == {"slow-link"}


def test_what_an_older_source_does_not_tell_is_null() -> None:
    document = expected_document(types_pb2.Expected(total_ms=900, downtime_ms=120, rounds=2), shared_clock=True)
    assert (document.total_ms, document.rounds) == (900, 2)
    assert (document.total_low_ms, document.downtime_high_ms, document.converges) == (None, None, None)
    assert (document.profile, document.link_bytes_per_s) == (None, None)


async def test_preflight_and_a_dry_run_measure_for_a_second_unless_told_otherwise(viaduct: Run, site: FakeSite) -> None:
    site.world.add("guest", "host-a")
    site.world.script.profiles = PROFILES
    checked = await viaduct("preflight", "guest", "--to", "host-b", "--json")
    dry = await viaduct("migrate", "guest", "--to", "host-b", "--dry-run", "--json")
    await viaduct("preflight", "guest", "--to", "host-b", "--measure", "200ms")
    await viaduct("preflight", "guest", "--to", "host-b", "--measure", "0s")
    assert site.world.measured_ms == [1000, 1000, 200, 0]
    assert checked.exit_code == dry.exit_code == 0
    assert checked.document == dry.document
    assert "Begin host-a" not in site.world.calls


async def test_a_dry_run_that_is_blocked_exits_with_3_and_begins_nothing(viaduct: Run, site: FakeSite) -> None:
    site.world.add("guest", "host-a")
    site.world.script.blockers = [types_pb2.Blocker(code="no-p2p", message="No P2P states")]
    dry = await viaduct("migrate", "guest", "--to", "host-b", "--dry-run", "--json")
    assert dry.exit_code == 3
    assert (dry.document["schema"], dry.document["passes"]) == ("viaduct.preflight.v1", False)
    assert site.world.calls == []


async def test_profiles_are_a_table(viaduct: Run, site: FakeSite) -> None:
    site.world.add("guest", "host-a")
    site.world.script.profiles = PROFILES
    said = (await viaduct("preflight", "guest", "--to", "host-b")).out
    gentle, balanced, urgent = (
        next(line for line in said.splitlines() if name in line) for name in ("gentle", "balanced", "urgent")
    )
    assert "may never fit the limit" in gentle
    assert "1.3 s (1.1 s to 2.1 s)" in balanced
    assert "120 ms (90 ms to 180 ms)" in urgent
    assert "never" not in balanced + urgent


async def test_profiles_that_do_not_differ_are_one_line(viaduct: Run, site: FakeSite) -> None:
    site.world.add("guest", "host-a")
    site.world.script.profiles = [expected(name) for name in ("gentle", "balanced", "urgent")]
    said = (await viaduct("preflight", "guest", "--to", "host-b")).out
    assert "the same under gentle, balanced, urgent" in said
    assert "profile " not in said


def test_bounds_are_shown_where_they_are_told() -> None:
    assert in_all(expected("balanced")) == "2.0 s (1.6 s to 3.0 s)"
    assert in_all(types_pb2.Expected(total_ms=900)) == "900 ms"


def test_an_attempt_without_an_outcome_tells_what_was_expected_of_it() -> None:
    assert foretold(expected("balanced")) == "2.0 s (1.6 s to 3.0 s) in all; downtime 120 ms (90 ms to 180 ms)"
    assert foretold(expected("gentle", converges=False)).endswith("; it may never fit the limit")
    assert foretold(types_pb2.Expected(total_ms=900, downtime_ms=120)) == "900 ms in all; downtime 120 ms"


def test_an_outcome_is_told_beside_what_was_expected() -> None:
    told = beside_outcome(expected("balanced"), 2200, 90)
    assert told == ("2.0 s (1.6 s to 3.0 s) in all, came 10 % more; downtime 120 ms (90 ms to 180 ms), came 25 % less")
    assert came(100, 100.2) == "came so"
    assert came(0, 250) == "came 250 ms"
