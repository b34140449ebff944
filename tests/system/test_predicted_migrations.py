"""What real agents expect of a migration, measured on a machine that works, and what the result says beside it."""

import pytest

from orchestrator.agents import Agents
from source_agent.expectation import ASSUMED_RATE
from tests.system.attempts import MIB, jobs_done, machine, policy, specification, works
from tests.system.command import viaduct
from tests.system.site import Site
from vm_migration.api.v1 import source_pb2
from vm_migration.errors import Unauthorised


def objects(value: object) -> list[dict[str, object]]:
    assert isinstance(value, list)
    return [one for one in value if isinstance(one, dict)]


def inner(document: dict[str, object], key: str) -> dict[str, object]:
    value = document[key]
    assert isinstance(value, dict), (key, value)
    return value


def number(document: dict[str, object], key: str) -> float:
    value = document[key]
    assert isinstance(value, int | float), (key, value)
    return value


def codes(candidate: dict[str, object]) -> set[object]:
    return {each["code"] for each in objects(candidate["warnings"])}


async def asked(site: Site, to: str, *words: str) -> dict[str, object]:
    ended = await viaduct(site, "preflight", "foretold", "--to", to, "--json", *words)
    assert ended.exit_code == 0, ended.err
    (candidate,) = objects(ended.document["candidates"])
    return candidate


async def test_a_working_machine_is_measured_and_told_about_under_each_profile(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("foretold")) as created:
        before = await works(site, "host-a", created.machine)
        written = site.states("host-a", created.machine)
        candidate = await asked(site, "host-b", "--measure", "300ms")
        assert "dirty-rate-assumed" not in codes(candidate)
        profiles = objects(candidate["profiles"])
        assert [each["profile"] for each in profiles] == ["gentle", "balanced", "urgent"]
        assert profiles[1] == candidate["expected"]
        for each in profiles:
            assert number(each, "total_low_ms") <= number(each, "total_ms") <= number(each, "total_high_ms")
            assert number(each, "downtime_low_ms") <= number(each, "downtime_ms") <= number(each, "downtime_high_ms")
            assert 0 < number(each, "dirty_bytes_per_s") < 64 * MIB * 4
        assert site.states("host-a", created.machine) == written  # nothing was begun
        assert await jobs_done(site, "host-a", created.machine) > before


async def test_a_result_says_what_was_expected_and_the_way_back_rests_on_the_way_there(
    site: Site, agents: Agents
) -> None:
    async with machine(site, agents, specification("foretold")) as created:
        await works(site, "host-a", created.machine)
        attempt, words = "", ("--downtime-limit", "2s", "--json")
        for source, to, window in (
            ("host-a", "host-b", "0s"),
            ("host-b", "host-a", "500ms"),
            ("host-a", "host-b", "500ms"),
        ):
            ended = await viaduct(site, "migrate", "foretold", "--to", to, "--measure", window, *words)
            assert (ended.exit_code, ended.document["source"]) == (0, source), ended.err
            expected = inner(ended.document, "expected")
            assert number(expected, "total_low_ms") <= number(expected, "total_ms")
            assert expected["profile"] == "balanced"
            attempt = str(ended.document["attempt"])
            assert 0 < number(expected, "dirty_bytes_per_s") < 64 * MIB * 4
            assert "dirty-rate-assumed" not in codes(ended.document)
        shown = (await viaduct(site, "show", attempt)).out
        assert "expected" in shown
        assert "came" in shown
        candidate = await asked(site, "host-a", "--measure", "0s")
        assert "rate-assumed" not in codes(candidate)  # host-b has moved it there before
        assert number(inner(candidate, "expected"), "link_bytes_per_s") != ASSUMED_RATE


async def test_who_may_only_look_has_no_machine_held_for_a_measurement(site: Site, agents: Agents) -> None:
    async with machine(site, agents, specification("foretold")) as created, site.agents("viewer") as viewer:
        request = source_pb2.CheckOutgoingRequest(
            machine=created.machine, destination="host-b", policy=policy(), measure_ms=200
        )
        for who, told in ((viewer, True), (agents, False)):
            found = await who.check_outgoing("host-a", request)
            assert ("dirty-rate-assumed" in {each.code for each in found.warnings}) is told
            assert found.expected.total_high_ms >= found.expected.total_ms > 0
        with pytest.raises(Unauthorised):
            await viewer.measure_dirty_rate("host-a", created.machine, 200)
