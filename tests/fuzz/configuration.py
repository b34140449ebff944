"""viaduct.toml (vm_migration.daemon.configuration)."""

from tests.fuzz.target import Target
from tests.fuzz.written_file import written
from vm_migration.daemon.configuration import load
from vmm.assembly.document_faults import MAX_DOCUMENT, InvalidDocument

_WHOLE = b"""\
[site]
name = "home"
store = "sqlite:///var/lib/viaduct/orchestrator.db"
mqtt = "mqtts://broker:8883"
[mqtt]
user = "anna"
password = "swordfish"
[host.host-a]
source = "10.0.0.1:7001"
dest = "10.0.0.1:7002"
bulk = "[::1]"
[tls]
ca = "pki/ca.pem"
certificate = "pki/this.pem"
key = "/abs/this.key"
[agent]
host = "host-a"
memory_budget = "64GiB"
arrival_patience = "2m"
[hooks]
before_prepare = ["notify --start", ["a", "b c"]]
deadline = "30s"
"""


def _read(data: bytes) -> None:
    with written(data) as path:
        configuration = load(path, {})
    configuration.broker()
    if configuration.tls is not None:
        configuration.tls_files()


TARGET = Target(
    "configuration",
    _read,
    refusals=(InvalidDocument,),
    seeds={"whole": _WHOLE, "empty": b"", "site": b'[site]\nname = "home"\nmqtt = "mqtt://broker"\n'},
    factor=1024,
    declared=lambda _: MAX_DOCUMENT,  # room to read the file
)
