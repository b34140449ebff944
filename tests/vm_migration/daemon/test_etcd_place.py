from pathlib import Path

import pytest

from vm_migration.daemon.configuration import load
from vm_migration.daemon.etcd_place import EtcdTls, parse_etcd
from vm_migration.errors import InvalidInput
from vmm.assembly.document_faults import InvalidDocument

TLS = EtcdTls(Path("/ca.pem"))


def test_members_are_named_in_the_order_in_which_they_are_tried() -> None:
    place = parse_etcd("etcds://etcd-1:2379,[::1]:2379,10.0.0.3:2379/", TLS)
    assert place.addresses == ("etcd-1:2379", "[::1]:2379", "10.0.0.3:2379")
    assert place.tls == TLS
    assert str(place) == "etcds://etcd-1:2379,[::1]:2379,10.0.0.3:2379"


@pytest.mark.parametrize(
    "url",
    [
        "etcd://10.0.0.1:2379",  # plaintext beyond loopback
        "etcd://127.0.0.1:2379,etcd-2:2379",
        "etcd://127.0.0.1",
        "etcd://",
        "etcd://127.0.0.1:2379,",
        "etcds://a:1,a:1",
        "etcds://user@a:1",
        "etcds://a:1/path",
    ],
)
def test_what_is_no_address_of_etcd_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        parse_etcd(url, TLS)


def test_tls_files_are_those_of_etcd_or_else_of_the_process(tmp_path: Path) -> None:
    file = tmp_path / "viaduct.toml"
    text = '[site]\nstore = "etcds://etcd-1:2379"\n[tls]\nca = "ca.pem"\ncertificate = "me.pem"\nkey = "me.key"\n'
    file.write_text(text)
    place = load(file, {}).etcd_place()
    assert place is not None
    assert place.tls == EtcdTls(tmp_path / "ca.pem", tmp_path / "me.pem", tmp_path / "me.key")
    file.write_text(text + '[etcd]\nca = "other.pem"\ncertificate = "its.pem"\nkey = "its.key"\nname = "etcd"\n')
    place = load(file, {}).etcd_place()
    assert place is not None
    assert place.tls == EtcdTls(tmp_path / "other.pem", tmp_path / "its.pem", tmp_path / "its.key", "etcd")


def test_etcd_over_tls_needs_an_authority(tmp_path: Path) -> None:
    configuration = load(None, {"VIADUCT_SITE_STORE": "etcds://etcd-1:2379"})
    with pytest.raises(InvalidInput, match="authority"):
        configuration.etcd_place()
    assert load(None, {"VIADUCT_SITE_STORE": "sqlite:///x.db"}).etcd_place() is None


def test_what_is_wrong_with_the_store_and_the_orchestrators_is_told_with_all_else(tmp_path: Path) -> None:
    file = tmp_path / "viaduct.toml"
    file.write_text(
        '[site]\nstore = "etcd://10.0.0.1:2379"\norchestrator = "127.0.0.1:1,127.0.0.1:1"\n'
        '[etcd]\ncertificate = "a.pem"\nport = 5\n'
    )
    with pytest.raises(InvalidDocument) as wrong:
        load(file, {})
    assert {fault.key for fault in wrong.value.faults} >= {"site.store", "site.orchestrator", "etcd.port"}


def test_several_orchestrators_are_named_in_one_line() -> None:
    site = load(None, {"VIADUCT_SITE_ORCHESTRATOR": "127.0.0.1:7000,[::1]:7001"}).site
    assert site.orchestrators == ("127.0.0.1:7000", "[::1]:7001")
    assert load(None, {}).site.orchestrators == ()
