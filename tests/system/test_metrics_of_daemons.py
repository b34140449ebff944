"""Both agents of a host leave their metrics where the configuration says, for as long as they serve."""

import contextlib
import tempfile
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.system.site import Site

FILES = ["viaduct-dest-agent.prom", "viaduct-source-agent.prom"]


def test_agents_leave_their_metrics_for_as_long_as_they_serve() -> None:
    with tempfile.TemporaryDirectory(prefix="viaduct-") as folder, tempfile.TemporaryDirectory() as metrics:
        site = Site(Path(folder), {"host-a": "64MiB"})
        with site.configuration("host-a").open("a") as configuration:
            configuration.write(f'[metrics]\nfolder = "{metrics}"\n')
        with contextlib.closing(site):
            site.run("host-a")
            assert sorted(path.name for path in Path(metrics).iterdir()) == FILES
            ends = site.identities["host-a"].load().expires.timestamp()
            for name in FILES:
                families = text_string_to_metric_families((Path(metrics) / name).read_text())
                told = {one.name: one.value for family in families for one in family.samples}
                assert told["viaduct_certificate_expires_timestamp_seconds"] == ends
            site.stop("host-a")
            assert list(Path(metrics).iterdir()) == []
