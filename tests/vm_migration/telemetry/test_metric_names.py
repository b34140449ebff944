"""Metrics are named as Prometheus asks for it, so that nobody has to look a unit up."""

import re

import pytest

from vm_migration.telemetry import counts, distributions, gauges

UNITS = ("_bytes", "_seconds", "_ratio", "_info", "_total", "_messages", "_length", "_in_phase", "_attempts")
"""Base units, and for what is counted in pieces the thing that is."""
THINGS = {
    "viaduct_machines",
    "viaduct_arrivals",
    "viaduct_orchestrator_leads",
    "viaduct_evacuations",
    "viaduct_evacuation_machines",
    "viaduct_hosts_in_maintenance",
}
FOREIGN = ("_milliseconds", "_ms", "_percent", "_kilobytes", "_mib", "_minutes", "_bits")
EVERYTHING = (*counts.ALL, *distributions.ALL, *gauges.ALL)


def test_no_name_is_given_twice() -> None:
    names = [one.name for one in EVERYTHING]
    assert len(names) == len(set(names))


def test_everything_that_is_declared_is_told() -> None:
    for module, kind in ((counts, counts.Count), (distributions, distributions.Distribution), (gauges, gauges.Gauge)):
        declared = [value for value in vars(module).values() if isinstance(value, kind)]
        assert declared == list(dict.fromkeys(declared))
        assert {one.name for one in declared} == {one.name for one in module.ALL}


@pytest.mark.parametrize("one", EVERYTHING, ids=lambda one: one.name)
def test_a_name_is_a_viaduct_s_and_says_what_it_is_of(
    one: counts.Count | distributions.Distribution | gauges.Gauge,
) -> None:
    assert re.fullmatch(r"viaduct(_[a-z]+)+", one.name)
    assert not one.name.endswith(FOREIGN)
    assert one.about[0].isupper()
    assert not one.about.endswith(".")
    for label in one.labels:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", label)
        assert label not in {"le", "daemon", "job", "instance"}, "these are told by others"


@pytest.mark.parametrize("one", gauges.ALL, ids=lambda one: one.name)
def test_a_gauge_ends_in_its_unit(one: gauges.Gauge) -> None:
    assert one.name.endswith(UNITS) or one.name in THINGS
    assert not one.name.endswith("_total"), "that is a count's"


@pytest.mark.parametrize("one", counts.ALL, ids=lambda one: one.name)
def test_a_count_leaves_its_ending_to_prometheus(one: counts.Count) -> None:
    assert not one.name.endswith(("_total", "_count", "_created"))


@pytest.mark.parametrize("one", distributions.ALL, ids=lambda one: one.name)
def test_a_distribution_is_in_seconds_between_ascending_bounds(one: distributions.Distribution) -> None:
    assert one.name.endswith("_seconds")
    assert list(one.bounds) == sorted(set(one.bounds))
