"""What a daemon counts, as Prometheus reads it from a file."""

from collections.abc import Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from vm_migration.daemon.configuration import load
from vm_migration.daemon.metrics import metrics
from vm_migration.daemon.metrics_text import write_metrics
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue, renew
from vm_migration.telemetry.counts import REFUSED_CALLS
from vm_migration.telemetry.daemons import Daemon
from vm_migration.telemetry.gauges import Reading

LABELS = ("/vm_migration.api.v1.Source/Begin", "viewer", "role")
DEST = Daemon.DEST


def samples(path: Path) -> dict[tuple[str, frozenset[str]], float]:
    return {
        (one.name, frozenset(one.labels.values())): one.value
        for family in text_string_to_metric_families(path.read_text())
        for one in family.samples
    }


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_counts_and_the_certificate_s_end_are_in_the_file(tmp_path: Path) -> None:
    create_authority(tmp_path, "home")
    files, path = issue(tmp_path, Identity("home", Role.HOST, "host-a")), tmp_path / "it.prom"
    REFUSED_CALLS.add(*LABELS)
    write_metrics(path, DEST, (), files)
    first = samples(path)
    expires = files.load().expires.timestamp()
    assert first["viaduct_certificate_expires_timestamp_seconds", frozenset({DEST})] == expires
    REFUSED_CALLS.add(*LABELS)
    renew(tmp_path, "host-a")
    write_metrics(path, DEST, (), files)
    counted = ("viaduct_refused_calls_total", frozenset((*LABELS, DEST)))
    assert samples(path)[counted] == first[counted] + 1
    files.key.unlink()
    write_metrics(path, DEST, (), files)
    assert not any(name.startswith("viaduct_certificate") for name, _ in samples(path))


async def test_the_file_is_there_for_as_long_as_the_daemon(tmp_path: Path) -> None:
    configuration = load(None, {"VIADUCT_INSECURE": "1", "VIADUCT_METRICS_FOLDER": str(tmp_path)})
    async with metrics(configuration, DEST) as told:
        assert names(tmp_path) == ["viaduct-dest-agent.prom"]
        assert told == {}
    assert names(tmp_path) == []


async def test_a_folder_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    configuration = load(None, {"VIADUCT_INSECURE": "1", "VIADUCT_METRICS_FOLDER": str(missing)})
    async with metrics(configuration, DEST):
        pass
    assert not missing.exists()


async def test_a_fault_in_reading_stops_nobody(tmp_path: Path) -> None:
    async def read() -> Sequence[Reading]:
        raise ZeroDivisionError

    configuration = load(None, {"VIADUCT_INSECURE": "1", "VIADUCT_METRICS_FOLDER": str(tmp_path)})
    async with metrics(configuration, DEST, read):
        assert names(tmp_path) == []
