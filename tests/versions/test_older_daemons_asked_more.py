"""What a newer command asks of older daemons and they do not have is said in plain words; nothing falls over."""

from orchestrator.agents import Agents
from tests.system.attempts import ENDLESS, in_the_middle, machine, specification
from tests.system.command import Ended, finished
from tests.versions.mixed_site import ASKS, DRIVES, ORCHESTRATOR, MixedSite, require_alone, running, viaduct
from tests.versions.programs import NEWER, Version


async def test_what_older_daemons_do_not_have_is_said_in_plain_words(
    mixed_site: MixedSite, agents: Agents, older: Version
) -> None:
    mixed_site.become(older, ORCHESTRATOR)
    mixed_site.a_is_older(older)
    async with machine(mixed_site, agents, specification("asked")) as created:
        doctor = await viaduct(mixed_site, NEWER, "doctor")
        assert doctor.exit_code == 8, doctor.err
        assert "problem version: The agents of host-a are of a version that tells no journals\n" in doctor.out
        recover = await viaduct(mixed_site, NEWER, "recover", "--json")
        assert (recover.exit_code, recover.document["unheard"]) == (0, ["host-a"]), recover.err
        fenced = await viaduct(mixed_site, NEWER, "recover", "--fenced", "host-a", "--yes")
        require_two_lines(fenced, 3, "host-a answers")
        for who in (DRIVES, ASKS):  # neither the source agent nor the orchestrator
            updated = await viaduct(mixed_site, NEWER, "update", "asked", who=who)
            require_two_lines(updated, 3, "does not offer this call")

        order = ("migrate", "asked", "--to", "host-b", *ENDLESS, "--json")
        async with running(mixed_site, NEWER, *order, who=ASKS) as command:
            await in_the_middle(agents, "host-a", created.machine)
            attempt = (await agents.get_machine("host-a", created.machine)).attempt
            asked = await viaduct(mixed_site, NEWER, "force", attempt, who=ASKS)
            require_two_lines(asked, 3, "does not offer this call")
            forced = await viaduct(mixed_site, NEWER, "force", attempt)  # an older source agent does
            assert forced.exit_code == 0, forced.err
            moved = await finished(command)
        assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
        updated = await viaduct(mixed_site, NEWER, "update", "asked")  # the first process of this version that it has
        assert updated.exit_code == 0, updated.err
        await require_alone(mixed_site, created.machine, "host-b")


async def test_a_forced_source_cuts_no_round_short_that_goes_to_an_older_destination(
    mixed_site: MixedSite, agents: Agents, older: Version
) -> None:
    mixed_site.a_is_older(older)
    async with machine(mixed_site, agents, specification("hurried"), "host-b") as created:
        async with running(mixed_site, NEWER, "migrate", "hurried", "--to", "host-a", *ENDLESS, "--json") as command:
            await in_the_middle(agents, "host-b", created.machine)
            attempt = (await agents.get_machine("host-b", created.machine)).attempt
            forced = await viaduct(mixed_site, NEWER, "force", attempt)
            assert forced.exit_code == 0, forced.err
            moved = await finished(command)
        assert (moved.exit_code, moved.document["pages_mismatched"]) == (0, 0), moved.err
        await require_alone(mixed_site, created.machine, "host-a")


async def test_a_source_that_hears_of_no_profile_and_measures_nothing_is_named(
    mixed_site: MixedSite, agents: Agents, older: Version
) -> None:
    mixed_site.a_is_older(older)
    async with machine(mixed_site, agents, specification("unheard-of")) as created:
        words = ("migrate", "unheard-of", "--to", "host-b", "--downtime-limit", "2s", "--json")
        modest = await viaduct(mixed_site, NEWER, *words, "--dry-run", "--profile", "gentle", "--measure", "0s")
        assert modest.exit_code == 0, modest.err
        assert "profile-unheard" not in modest.out
        assert "dirty-rate-assumed" not in modest.out
        moved = await viaduct(mixed_site, NEWER, *words, "--profile", "urgent")
        assert moved.exit_code == 0, moved.err
        warnings = moved.document["warnings"]
        assert isinstance(warnings, list)
        told = {each["code"]: each["message"] for each in warnings}
        assert "host-a" in told["profile-unheard"]
        assert "host-a" in told["dirty-rate-assumed"]
        limits = {"downtime_limit_ms": 2000, "max_bandwidth_bytes_per_s": None, "tuned": False}
        assert (moved.document["limits"], moved.document["delta_hit_rate"]) == (limits, None)
        await require_alone(mixed_site, created.machine, "host-b")


async def test_an_older_host_is_chosen_where_no_other_is_left_though_it_tells_no_offer(
    mixed_site: MixedSite, agents: Agents, older: Version
) -> None:
    mixed_site.a_is_older(older)
    listed = await viaduct(mixed_site, NEWER, "host", "show", "host-a")
    assert "an agent of 0.1.0 does not say" in listed.out, listed.err
    async with machine(mixed_site, agents, specification("chosen"), "host-b") as created:
        explained = await viaduct(
            mixed_site, NEWER, "preflight", "chosen", "--to", "any", "--explain", "--measure", "0s"
        )
        assert explained.exit_code == 0, explained.err
        assert "does not say: devices and vIOMMUs, attempts that leave, attempts that arrive" in explained.out
        assert "host-a is the only one that can take it." in explained.out
        order = ("migrate", "chosen", "--to", "any", "--downtime-limit", "2s", "--measure", "0s", "--json")
        moved = await viaduct(mixed_site, NEWER, *order)
        assert (moved.exit_code, moved.document["outcome"]) == (0, "completed"), moved.err
        back = await viaduct(mixed_site, older, "preflight", "chosen", "--to", "any")  # which knows of no offer
        assert back.exit_code == 0, back.err
        await require_alone(mixed_site, created.machine, "host-a")


def require_two_lines(ended: Ended, exit_code: int, words: str) -> None:
    """Check that a command said in one line why, and in another what to do."""
    assert ended.exit_code == exit_code, ended
    why, remedy = ended.err.splitlines()
    assert words in why, ended.err
    assert remedy.startswith("  fix: "), ended.err
