"""What a daemon has counted, and when its certificate ends, in Prometheus' text format."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vm_migration.errors import InvalidInput
from vm_migration.link.tls import TlsFiles
from vm_migration.telemetry import counts

_CERTIFICATE: Final = "viaduct_certificate_expires_timestamp_seconds"
_ABOUT: Final = "When the certificate ends, or the authority that signed it, in seconds since 1970"


class _Counted(Collector):
    """What is true when somebody collects."""

    def __init__(self, files: TlsFiles | None) -> None:
        self._files: Final = files

    def collect(self) -> Iterator[Metric]:
        for count in counts.ALL:
            family = CounterMetricFamily(count.name, count.about, labels=count.labels)
            for values, number in count.read().items():
                family.add_metric(values, number)
            yield family
        if self._files is not None:
            try:
                expires = self._files.load().expires
            except InvalidInput:  # being replaced, or broken: no figure is better than an old one
                return
            yield GaugeMetricFamily(_CERTIFICATE, _ABOUT, value=expires.timestamp())


def write_metrics(path: Path, files: TlsFiles | None) -> None:
    """Write the file, whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    registry = CollectorRegistry()
    registry.register(_Counted(files))
    write_to_textfile(str(path), registry)
