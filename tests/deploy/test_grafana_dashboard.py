"""The dashboard asks for nothing that no daemon tells."""

import re
from pathlib import Path

import msgspec
import pytest

from vm_migration.telemetry import counts, distributions, gauges

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "viaduct.json"
OF_PROMETHEUS = {"instance", "job", "le", "daemon"}
"""Labels that the scrape, the histogram and every sample have."""
OF_THE_PROCESS = {"process_resident_memory_bytes"}


class Target(msgspec.Struct):
    expr: str
    legendFormat: str  # noqa: N815 - Grafana's name
    refId: str  # noqa: N815 - Grafana's name


class Place(msgspec.Struct):
    h: int
    w: int
    x: int
    y: int


class Panel(msgspec.Struct):
    id: int
    title: str
    gridPos: Place  # noqa: N815 - Grafana's name
    targets: list[Target] = []


class Dashboard(msgspec.Struct):
    uid: str
    title: str
    panels: list[Panel]


def series() -> dict[str, set[str]]:
    """Return the labels of every series that Prometheus keeps of the daemons."""
    found = {name: set[str]() for name in OF_THE_PROCESS}
    found |= {f"{one.name}_total": set(one.labels) for one in counts.ALL}
    found |= {one.name: set(one.labels) for one in gauges.ALL}
    for one in distributions.ALL:
        found |= {f"{one.name}_{part}": set(one.labels) for part in ("bucket", "sum", "count")}
    return found


def read() -> Dashboard:
    return msgspec.json.decode(DASHBOARD.read_bytes(), type=Dashboard)


EXPRESSIONS = [(panel.title, target) for panel in read().panels for target in panel.targets]


@pytest.mark.parametrize(("title", "target"), EXPRESSIONS, ids=[f"{title}-{one.refId}" for title, one in EXPRESSIONS])
def test_every_metric_and_label_that_is_asked_for_exists(title: str, target: Target) -> None:
    known = series()
    asked = set(re.findall(r"\b(?:viaduct|process)_[a-z_]+", re.sub(r'"[^"]*"', '""', target.expr)))
    assert asked, title
    assert asked <= known.keys(), f"{title} asks for {asked - known.keys()}"
    labels = OF_PROMETHEUS.union(*(known[name] for name in asked))
    selected = set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", target.expr))
    grouped = {one.strip() for group in re.findall(r"by \(([^)]*)\)", target.expr) for one in group.split(",")}
    shown = set(re.findall(r"{{(\w+)}}", target.legendFormat))
    assert selected | grouped | shown <= labels, title


def test_every_metric_of_migrations_is_drawn() -> None:
    drawn = " ".join(target.expr for _, target in EXPRESSIONS)
    told = [one.name for one in (*gauges.ALL, *distributions.ALL) if "_rate_" in one.name or "downtime" in one.name]
    assert [name for name in told if name not in drawn] == []


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = read().panels
    assert len({one.id for one in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for one in panels:
        place = one.gridPos
        cells = {(x, y) for x in range(place.x, place.x + place.w) for y in range(place.y, place.y + place.h)}
        assert not cells & taken, one.title
        assert place.x + place.w <= 24
        taken |= cells
