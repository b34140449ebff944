"""Histograms lose no value and keep Prometheus' meaning of a bound: at most."""

from hypothesis import given
from hypothesis import strategies as st

from vm_migration.telemetry.distributions import Distribution

values = st.lists(st.floats(min_value=0, max_value=100, allow_nan=False))
bounds = st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=8, unique=True).map(sorted)


@given(values, bounds)
def test_each_bound_has_what_is_at_most_it_and_the_last_has_all(values: list[float], bounds: list[float]) -> None:
    tried = Distribution("viaduct_x_seconds", "X", bounds=bounds)
    for value in values:
        tried.add(value)
    if not values:
        assert tried.read() == {}
        return
    found = tried.read()[()]
    assert found.up_to == (*(sum(value <= bound for value in values) for bound in bounds), len(values))
    assert abs(found.total - sum(values)) < 1e-6


def test_values_are_apart_by_their_labels() -> None:
    tried = Distribution("viaduct_x_seconds", "X", "outcome", bounds=(1.0,))
    tried.add(0.5, "completed")
    tried.add(2.0, "failed")
    assert {labels: one.up_to for labels, one in tried.read().items()} == {("completed",): (1, 1), ("failed",): (0, 1)}
