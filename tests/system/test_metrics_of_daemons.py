"""Every daemon tells its metrics where the configuration says, for as long as it serves."""

import contextlib
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.agents import Agents
from tests.system.attempts import PATIENT, endless, in_the_middle, machine, migrated, specification, started, works
from tests.system.command import viaduct
from tests.system.orchestrated import prepared_orchestrator
from tests.system.site import Site
from vm_migration.loopback.ports import free_ports

FILES = ["viaduct-dest-agent.prom", "viaduct-source-agent.prom"]
Labels = frozenset[tuple[str, str]]


def told(text: str, *, without: str = "daemon") -> dict[tuple[str, Labels], float]:
    """Return every sample by its name and labels, as Prometheus' own parser reads them."""
    return {
        (one.name, frozenset((name, value) for name, value in one.labels.items() if name != without)): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def scraped(address: str) -> dict[tuple[str, Labels], float]:
    connection = HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
        assert (answer.status, answer.headers["Content-Type"].split(";")[0]) == (200, "text/plain"), text
        return told(text)


def of(samples: dict[tuple[str, Labels], float], name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


@pytest.fixture
def metered() -> Iterator[tuple[Site, dict[tuple[str, str], str]]]:
    """Two hosts whose agents answer collectors, and where."""
    with tempfile.TemporaryDirectory(prefix="viaduct-") as folder:
        site = Site(Path(folder), {"host-a": "1GiB", "host-b": "1GiB"})
        where = dict(zip(site.daemons, (f"127.0.0.1:{port}" for port in free_ports(4)), strict=True))
        for host in site.budgets:
            with site.configuration(host).open("a") as configuration:
                configuration.write(f'[metrics]\nsource = "{where[host, "source"]}"\ndest = "{where[host, "dest"]}"\n')
        with contextlib.closing(site):
            site.run("host-a", "host-b")
            yield site, where


async def test_a_migration_is_in_the_metrics_of_both_its_hosts(
    metered: tuple[Site, dict[tuple[str, str], str]],
) -> None:
    site, where = metered
    async with site.agents() as agents, machine(site, agents, specification("counted")) as created:
        uuid = created.machine
        await works(site, "host-a", uuid)
        attempt = await started(agents, uuid, "host-a", "host-b", endless())
        await in_the_middle(agents, "host-a", uuid)
        during, arriving = scraped(where["host-a", "source"]), scraped(where["host-b", "dest"])
        one = {"machine": uuid, "attempt": attempt.key.attempt, "destination": "host-b"}
        assert of(during, "viaduct_migrations_in_phase", phase="pre-copy") == 1
        assert of(during, "viaduct_migration_data_total_bytes", **one) == created.ram_bytes
        assert of(during, "viaduct_migration_data_transferred_bytes", **one) > 0
        assert of(during, "viaduct_migration_downtime_limit_seconds", **one) == 0.1
        assert of(during, "viaduct_memory_in_use_bytes") == created.ram_bytes
        assert of(arriving, "viaduct_arrivals", state="PREPARED") == 1
        assert of(arriving, "viaduct_open_attempts") == 1
        await agents.cancel("host-a", attempt.key)
        report = await migrated(agents, uuid, "host-a", "host-b")
        assert report.outcome == "completed"
        after, arrived = scraped(where["host-a", "source"]), scraped(where["host-b", "dest"])
        assert of(after, "viaduct_migrations_in_phase", phase="pre-copy") == 0
        assert ("viaduct_migration_data_total_bytes", frozenset(one.items())) not in after
        assert of(after, "viaduct_migrations_ended_total", outcome="completed") == 1
        assert of(after, "viaduct_migrations_ended_total", outcome="cancelled") == 1
        assert of(after, "viaduct_migration_downtime_seconds_count") == 1
        assert of(after, "viaduct_migration_downtime_seconds_sum") == pytest.approx(report.downtime.downtime_ms / 1e3)
        assert of(arrived, "viaduct_arrivals_activated_total") == 1
        assert of(arrived, "viaduct_arrivals_prepared_total") == 2


async def test_the_orchestrator_tells_of_its_store(site: Site, agents: Agents) -> None:
    (port,) = free_ports(1)
    with prepared_orchestrator(site) as made:
        own = made.daemon.folder / "orchestrator.toml"
        own.write_text(own.read_text() + f'[metrics]\norchestrator = "127.0.0.1:{port}"\n')
        made.daemon.start()
        async with machine(site, agents, specification("stored")) as created:
            moved = await viaduct(
                site, "migrate", created.machine, "--to", "host-b", *PATIENT, "--json", config=made.operator
            )
            assert moved.exit_code == 0, moved.err
            found = scraped(f"127.0.0.1:{port}")
        assert of(found, "viaduct_attempts_ended_total", outcome="completed") == 1
        assert of(found, "viaduct_queue_length") == 0
        assert of(found, "viaduct_orchestrator_leads") == 1
        passed = "viaduct_attempt_phase_transition_time_from_creation_seconds_count"
        assert of(found, passed, phase="completed") == 1


def test_agents_leave_their_metrics_for_as_long_as_they_serve() -> None:
    with tempfile.TemporaryDirectory(prefix="viaduct-") as folder, tempfile.TemporaryDirectory() as metrics:
        site = Site(Path(folder), {"host-a": "64MiB"})
        with site.configuration("host-a").open("a") as configuration:
            configuration.write(f'[metrics]\nfolder = "{metrics}"\n')
        with contextlib.closing(site):
            site.run("host-a")
            assert sorted(path.name for path in Path(metrics).iterdir()) == FILES
            ends = site.identities["host-a"].load().expires.timestamp()
            every: list[tuple[str, Labels]] = []
            for name in FILES:
                found = told((Path(metrics) / name).read_text(), without="")
                daemon = name.removesuffix(".prom")
                assert of(found, "viaduct_certificate_expires_timestamp_seconds", daemon=daemon) == ends
                every += found
            assert len(every) == len(set(every)), "one collector reads both files, and refuses a sample that is twice"
            site.stop("host-a")
            assert list(Path(metrics).iterdir()) == []
