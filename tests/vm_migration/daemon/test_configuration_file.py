"""viaduct.toml and VIADUCT_*: what is right is read, what is wrong is told all at once."""

import os
from pathlib import Path

import pytest

from dest_agent.admission import MOST_ARRIVALS
from source_agent.attempts import MOST_OPEN
from vm_migration.daemon.broker_url import Broker, BrokerTls
from vm_migration.daemon.configuration import VARIABLES, Configuration, load
from vm_migration.daemon.hooks import HookPoint
from vm_migration.errors import InvalidInput
from vm_migration.link.server_limits import USUAL, ServerLimits
from vm_migration.link.tls import TlsFiles
from vmm.assembly.document_faults import Fault, InvalidDocument

CONTRACT = """
[site]
name = "home"
store = "sqlite:///var/lib/viaduct/orchestrator.db"
mqtt = "mqtts://broker:8883"
[host.host-a]
source = "10.0.0.1:7001"
dest = "10.0.0.1:7002"
bulk = "192.168.0.1"
[tls]
ca = "/etc/viaduct/pki/ca.pem"
certificate = "/etc/viaduct/pki/this.pem"
key = "/etc/viaduct/pki/this.key"
[agent]
host = "host-a"
state_dir = "/var/lib/viaduct"
run_dir = "/run/viaduct"
memory_budget = "64GiB"
[hooks]
before_prepare = []
before_handoff = []
after_active = ["announce-address"]
after_abort = []
"""


def write(folder: Path, text: str, mode: int = 0o644) -> Path:
    path = folder / "viaduct.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def read(folder: Path, text: str, environment: dict[str, str] | None = None) -> Configuration:
    return load(write(folder, text), environment or {})


def faults(folder: Path, text: str, environment: dict[str, str] | None = None) -> dict[str, Fault]:
    with pytest.raises(InvalidDocument) as caught:
        read(folder, text, environment)
    return {fault.key: fault for fault in caught.value.faults}


def test_the_contract_s_example_is_read(tmp_path: Path) -> None:
    configuration = read(tmp_path, CONTRACT)
    assert configuration.site.name == "home"
    assert configuration.site.store == "sqlite:///var/lib/viaduct/orchestrator.db"
    assert configuration.host["host-a"].source == "10.0.0.1:7001"
    assert configuration.host["host-a"].bulk_host == "192.168.0.1"
    assert configuration.host["host-a"].transport is None
    assert configuration.agent is not None
    assert configuration.agent.memory_budget == 64 << 30
    assert configuration.agent.run_dir == Path("/run/viaduct")
    assert configuration.hooks.commands(HookPoint.AFTER_ACTIVE) == (("announce-address",),)
    assert configuration.hooks.commands(HookPoint.BEFORE_PREPARE) == ()
    pki = Path("/etc/viaduct/pki")
    assert configuration.tls_files() == TlsFiles(pki / "ca.pem", pki / "this.pem", pki / "this.key")
    tls = BrokerTls(pki / "ca.pem", pki / "this.pem", pki / "this.key")
    assert configuration.broker() == Broker("broker", 8883, tls)


def test_a_host_may_say_how_memory_travels_to_it(tmp_path: Path) -> None:
    entry = 'bulk = "192.168.0.1"\ntransport = "direct"'
    configuration = read(tmp_path, CONTRACT.replace('bulk = "192.168.0.1"', entry))
    assert configuration.host["host-a"].transport == "direct"
    (fault,) = faults(tmp_path, CONTRACT.replace('bulk = "192.168.0.1"', 'transport = "pigeon"')).values()
    assert (fault.key, "grpc" in fault.allowed, "direct" in fault.allowed) == ("host.host-a.transport", True, True)


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """
        [site]
        name = "Home!"
        colour = "red"
        mqtt = "http://broker"
        store = "mysql://x"
        [host.host-a]
        source = "10.0.0.1"
        [host.host_b]
        source = "10.0.0.2:7001"
        dest = "10.0.0.2:99999"
        [tls]
        ca = 5
        [agent]
        host = "host-a"
        memory_budget = "64 bananas"
        [hooks]
        before_prepare = "true"
        after_active = ["'unbalanced"]
        deadline = "soon"
        [typo]
        """,
    )
    assert set(found) >= {
        "site.name",
        "site.colour",
        "site.mqtt",
        "site.store",
        "host.host-a.source",
        "host.host-a.dest",
        "host.host_b.dest",
        "tls.ca",
        "tls.certificate",
        "tls.key",
        "agent.memory_budget",
        "hooks.before_prepare",
        "hooks.after_active",
        "hooks.deadline",
        "typo",
    }
    assert all(fault.file == str(tmp_path / "viaduct.toml") for fault in found.values())
    assert found["site.colour"].allowed == "name, store, mqtt, orchestrator"
    assert found["site.mqtt"].allowed == "mqtt://host[:port] or mqtts://host[:port]"
    assert "bananas" in found["agent.memory_budget"].problem


def test_the_environment_overrides_and_is_named_when_wrong(tmp_path: Path) -> None:
    environment = {
        "VIADUCT_SITE_NAME": "other",
        "VIADUCT_AGENT_MEMORY_BUDGET": "2GiB",
        "VIADUCT_TLS_KEY": "/run/secrets/key",
        "VIADUCT_ATTEMPT": "not ours",
    }
    configuration = read(tmp_path, CONTRACT, environment)
    assert configuration.site.name == "other"
    assert configuration.agent is not None
    assert configuration.agent.memory_budget == 2 << 30
    assert configuration.tls is not None
    assert configuration.tls.key == Path("/run/secrets/key")
    found = faults(tmp_path, CONTRACT, {"VIADUCT_SITE_MQTT": "nonsense", "VIADUCT_INSECURE": "perhaps"})
    assert {(fault.file, fault.key) for fault in found.values()} == {
        ("environment", "VIADUCT_SITE_MQTT"),
        ("environment", "VIADUCT_INSECURE"),
    }


def test_the_environment_alone_is_enough() -> None:
    environment = {"VIADUCT_SITE_NAME": "home", "VIADUCT_AGENT_HOST": "host-a", "VIADUCT_AGENT_MEMORY_BUDGET": "1GiB"}
    configuration = load(None, environment)
    assert configuration.agent is not None
    assert (configuration.site.name, configuration.agent.host) == ("home", "host-a")
    assert "VIADUCT_MQTT_PASSWORD" in VARIABLES


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, CONTRACT)
    assert load(None, {"VIADUCT_CONFIG": str(path)}).site.name == "home"
    with pytest.raises(InvalidDocument):
        load(None, {"VIADUCT_CONFIG": str(tmp_path / "missing.toml")})


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = '[tls]\nca = "pki/ca.pem"\ncertificate = "pki/this.pem"\nkey = "/abs/this.key"'
    tls = read(tmp_path, text).tls
    assert tls is not None
    assert (tls.ca, tls.key) == (tmp_path / "pki" / "ca.pem", Path("/abs/this.key"))


def test_without_certificates_plaintext_must_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(tmp_path, "").tls_files()
    assert caught.value.code == "no-tls"
    assert "VIADUCT_INSECURE=1" in caught.value.hint  # which every program takes; most have no option for it
    assert read(tmp_path, "", {"VIADUCT_INSECURE": "1"}).tls_files() is None
    assert load(write(tmp_path, CONTRACT), {}, insecure=True).tls_files() is None
    assert read(tmp_path, CONTRACT, {"VIADUCT_INSECURE": "0"}).tls_files() is not None


@pytest.mark.parametrize(("mode", "refused"), [(0o644, True), (0o604, True), (0o600, False), (0o640, False)])
def test_a_file_with_a_password_is_not_for_everybody(tmp_path: Path, mode: int, refused: bool) -> None:
    path = write(tmp_path, '[site]\nmqtt = "mqtts://broker"\n[mqtt]\nuser = "anna"\npassword = "swordfish"', mode)
    if refused:
        with pytest.raises(InvalidDocument) as caught:
            load(path, {})
        assert [fault.key for fault in caught.value.faults] == ["mqtt.password"]
        assert "swordfish" not in str(caught.value)
    else:
        configuration = load(path, {})
        broker = configuration.broker()
        assert broker is not None
        assert (broker.user, broker.password, broker.port) == ("anna", "swordfish", 8883)
        assert "swordfish" not in repr(configuration) + repr(broker)


def test_a_password_from_the_environment_needs_no_private_file(tmp_path: Path) -> None:
    text = '[site]\nmqtt = "mqtts://broker"\n[mqtt]\nuser = "anna"'
    broker = read(tmp_path, text, {"VIADUCT_MQTT_PASSWORD": "swordfish"}).broker()
    assert broker is not None
    assert broker.password == "swordfish"  # noqa: S105  # the test's own


def secret_at(folder: Path, contents: bytes, mode: int = 0o400) -> Path:
    path = folder / "mqtt-password"
    path.write_bytes(contents)
    path.chmod(mode)
    return path


def test_a_password_may_lie_alone_in_a_file(tmp_path: Path) -> None:
    secret_at(tmp_path, b"swordfish\n")
    text = '[site]\nmqtt = "mqtts://broker"\n[mqtt]\nuser = "anna"\npassword_file = "mqtt-password"'
    configuration = load(write(tmp_path, text, 0o644), {})  # the configuration itself holds no secret
    broker = configuration.broker()
    assert broker is not None
    assert (broker.user, broker.password) == ("anna", "swordfish")
    assert "swordfish" not in repr(configuration) + repr(broker)
    elsewhere = {"VIADUCT_MQTT_PASSWORD_FILE": str(tmp_path / "mqtt-password")}
    named = load(write(tmp_path, text.rpartition("\n")[0]), elsewhere).broker()
    assert named is not None
    assert named.password == broker.password


@pytest.mark.parametrize(
    ("contents", "mode", "problem"),
    [
        (b"swordfish", 0o644, "Everybody can read this file (mode 0644)"),
        (b"swordfish", 0o602, "Everybody can read this file (mode 0602)"),
        (b"swordfish", 0o620, "Everybody can read this file (mode 0620)"),
        (b"", 0o600, "does not hold one line of text"),
        (b"sword\nfish\n", 0o600, "does not hold one line of text"),
        (b"\xff\xfe", 0o600, "does not hold one line of text"),
        (b"s" * 5000, 0o600, "does not hold one line of text"),
    ],
)
def test_a_secret_s_file_that_others_can_read_or_that_holds_none_is_refused(
    tmp_path: Path, contents: bytes, mode: int, problem: str
) -> None:
    secret_at(tmp_path, contents, mode)
    text = '[site]\nmqtt = "mqtts://broker"\n[mqtt]\nuser = "anna"\npassword_file = "mqtt-password"'
    found = faults(tmp_path, text)
    assert list(found) == ["mqtt.password_file"]
    assert problem in found["mqtt.password_file"].problem
    assert "fish" not in str(found)


def test_a_secret_that_is_missing_or_given_twice_is_refused(tmp_path: Path) -> None:
    text = '[site]\nmqtt = "mqtts://broker"\n[mqtt]\nuser = "anna"\npassword_file = "mqtt-password"'
    assert "No such file" in faults(tmp_path, text)["mqtt.password_file"].problem
    os.mkfifo(tmp_path / "mqtt-password", 0o600)
    assert "is no file" in faults(tmp_path, text)["mqtt.password_file"].problem
    (tmp_path / "mqtt-password").unlink()
    secret_at(tmp_path, b"swordfish")
    twice = faults(tmp_path, text + '\npassword = "swordfish"')["mqtt.password_file"]
    assert twice.problem == "The password is given twice"


@pytest.mark.parametrize("where", ["broker", "10.0.0.9", "localhost.example.org"])
def test_a_password_travels_under_tls_or_not_at_all(tmp_path: Path, where: str) -> None:
    text = f'[site]\nmqtt = "mqtt://{where}"\n[mqtt]\nuser = "anna"\npassword = "swordfish"'
    (fault,) = faults(tmp_path, text).values()
    assert (fault.key, fault.allowed) == ("mqtt.password", "a broker at mqtts://")
    assert "swordfish" not in str(fault)


@pytest.mark.parametrize("where", ["localhost", "127.0.0.1", "[::1]"])
def test_a_password_may_travel_in_plaintext_within_this_machine(tmp_path: Path, where: str) -> None:
    text = f'[site]\nmqtt = "mqtt://{where}"\n[mqtt]\nuser = "anna"\npassword = "swordfish"'
    assert load(write(tmp_path, text, 0o600), {}).broker() is not None


def test_a_key_for_the_broker_that_others_can_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broker.key").write_text("a key")
    (tmp_path / "broker.key").chmod(0o644)
    text = '[site]\nmqtt = "mqtts://broker"\n[mqtt]\ncertificate = "broker.pem"\nkey = "broker.key"'
    assert "Everybody can read" in faults(tmp_path, text)["mqtt.key"].problem
    (tmp_path / "broker.key").chmod(0o600)
    assert read(tmp_path, text).broker() is not None


def test_a_password_in_the_broker_s_url_is_refused_without_repeating_it(tmp_path: Path) -> None:
    found = faults(tmp_path, '[site]\nmqtt = "mqtt://anna:swordfish@broker"')
    assert "swordfish" not in str(found["site.mqtt"])


def test_keys_that_contradict_each_other(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """
        [host.host-a]
        source = "10.0.0.1:7001"
        dest = "10.0.0.1:7001"
        [agent]
        host = "host-z"
        memory_budget = "1GiB"
        [mqtt]
        certificate = "this.pem"
        [hooks]
        deadline = "0s"
        """,
    )
    assert set(found) == {"host.host-a.dest", "agent.host", "mqtt.key", "hooks.deadline"}
    assert found["agent.host"].allowed == "host-a"


def test_limits_are_as_usual_where_nothing_is_said(tmp_path: Path) -> None:
    assert read(tmp_path, CONTRACT).server_limits() == USUAL
    some = read(tmp_path, '[limits]\nconnections = 64\nhandshake = "300ms"\ncalls_per_second = 7')
    assert some.server_limits() == ServerLimits(64, 0.3, USUAL.calls, 7)
    assert (read(tmp_path, CONTRACT).limits.attempts, some.limits.attempts) == (MOST_ARRIVALS, MOST_OPEN)
    found = faults(tmp_path, '[limits]\nconnections = 0\nhandshake = "10m"\ncalls = "many"\nstreams = 3')
    assert set(found) == {"limits.connections", "limits.handshake", "limits.calls", "limits.streams"}


def test_hook_commands_are_words_not_shell(tmp_path: Path) -> None:
    hooks = read(
        tmp_path, """[hooks]\nafter_abort = ["say 'two words' $HOME", ["a", "b c"]]\ndeadline = "1500ms" """
    ).hooks
    assert hooks.commands(HookPoint.AFTER_ABORT) == (("say", "two words", "$HOME"), ("a", "b c"))
    assert hooks.deadline == 1.5


@pytest.mark.parametrize("text", ["[site", "site = 3", "[site]\nname = 3", "[hooks]\nafter_abort = [[]]", "host = 1"])
def test_what_is_no_such_document(tmp_path: Path, text: str) -> None:
    assert faults(tmp_path, text)
