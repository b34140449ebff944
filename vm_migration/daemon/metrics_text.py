"""What a daemon has counted, measured and read, in Prometheus' text format.

Every sample carries the daemon, so that the daemons of one host may leave their figures in one place. What has not
happened yet is told as 0 where it has no labels; gauges of which nothing was read are left out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from vm_migration.daemon.host_facts import VERSION
from vm_migration.errors import InvalidInput
from vm_migration.link.tls import TlsFiles
from vm_migration.telemetry import counts, distributions, gauges
from vm_migration.telemetry.daemons import Daemon
from vm_migration.telemetry.distributions import Distribution
from vm_migration.telemetry.gauges import Gauge, Reading

DAEMON: Final = "daemon"
"""The label that every sample has."""
_OPENMETRICS: Final = "application/openmetrics-text"


class _Known(Collector):
    """What is known when somebody collects."""

    def __init__(self, daemon: Daemon, readings: Iterable[Reading], files: TlsFiles | None) -> None:
        self._daemon: Final = daemon
        self._readings: Final = (*_always(files), *readings)

    def collect(self) -> Iterator[Metric]:
        for count in counts.ALL:
            if self._daemon in count.of:
                counter = CounterMetricFamily(count.name, count.about, labels=(DAEMON, *count.labels))
                for values, number in count.read().items():
                    counter.add_metric((self._daemon, *values), number)
                yield counter
        for one in distributions.ALL:
            if self._daemon in one.of:
                yield self._histogram(one)
        for gauge, readings in _by_gauge(self._readings).items():
            family = GaugeMetricFamily(gauge.name, gauge.about, labels=(DAEMON, *gauge.labels))
            for reading in readings:
                family.add_metric((self._daemon, *reading.labels), reading.value)
            yield family

    def _histogram(self, one: Distribution) -> Metric:
        family = HistogramMetricFamily(one.name, one.about, labels=(DAEMON, *one.labels))
        bounds = (*(str(bound) for bound in one.bounds), "+Inf")
        for values, found in one.read().items():
            buckets = list(zip(bounds, map(float, found.up_to), strict=True))
            family.add_metric((self._daemon, *values), buckets, found.total)
        return family


def write_metrics(path: Path, daemon: Daemon, readings: Sequence[Reading], files: TlsFiles | None) -> None:
    """Write the file, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    registry = CollectorRegistry()
    registry.register(_Known(daemon, readings, files))
    write_to_textfile(str(path), registry)


def metrics_page(daemon: Daemon, readings: Sequence[Reading], files: TlsFiles | None, accept: str) -> tuple[bytes, str]:
    """Return the page for a collector that accepts these types, and its own type; it has the process's figures, too."""
    registry = CollectorRegistry()
    registry.register(_Known(daemon, readings, files))
    ProcessCollector(registry=registry)
    wanted = any(one.partition(";")[0].strip() == _OPENMETRICS for one in accept.split(","))
    # What a collector says of versions goes no further: the library takes it for one, and repeats it.
    encode, kind = choose_encoder(f"{_OPENMETRICS}; version=1.0.0" if wanted else "")
    return encode(registry), kind


def _always(files: TlsFiles | None) -> Iterator[Reading]:
    yield Reading(gauges.BUILD, 1, (VERSION,))
    if files is not None:
        try:
            expires = files.load().expires
        except InvalidInput:  # being replaced, or broken: no figure is better than an old one
            return
        yield Reading(gauges.CERTIFICATE_EXPIRES, expires.timestamp())


def _by_gauge(readings: Iterable[Reading]) -> Mapping[Gauge, Sequence[Reading]]:
    found: dict[Gauge, list[Reading]] = {}
    for reading in readings:
        found.setdefault(reading.gauge, []).append(reading)
    return found
