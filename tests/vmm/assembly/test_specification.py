import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vmm.assembly.document_faults import Fault, InvalidDocument
from vmm.assembly.specification import (
    MachineSpecification,
    check_specification,
    load_specification,
    parse_specification,
)

WHOLE = """
name = "qat-guest"
kind = "model"
[memory]
size = "1GiB"
backing = "memfd"
image = "ram.img"
[viommu]
model = "intel"
mode = "scalable"
aw_bits = 48
reports_max_iova = true
caching_mode = true
dma_translation = true
[guest]
iommu = "nopt"
vcpus = 1
cpu_dirty_rate = "100MiB/s"
working_set = "256MiB"
pattern = "uniform"
seed = 1
[rules]
set = "merged"
[[device]]
name = "qat0"
model = "qat"
address = "00:04.0"
backend = "iommufd"
host_iommu_dirty_tracking = true
device_dirty_tracking = false
enable_migration = "auto"
mediated = false
bypass_iommu = false
dma_rate = "50MiB/s"
"""
SHORT = 'name = "qat-guest"\nmemory.size = "1GiB"\n[[device]]\nname = "qat0"\nmodel = "qat"\naddress = "00:04.0"\n'


def faults(path: Path, text: str) -> dict[str, Fault]:
    path.write_text(text)
    with pytest.raises(InvalidDocument) as caught:
        load_specification(path)
    assert {fault.file for fault in caught.value.faults} == {str(path)}
    assert len({fault.key for fault in caught.value.faults}) == len(caught.value.faults)
    return {fault.key: fault for fault in caught.value.faults}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "machine.toml"


def test_the_documented_values_are_the_defaults(path: Path) -> None:
    path.write_text(WHOLE)
    whole = load_specification(path)
    path.write_text(SHORT)
    assert whole.memory.image == str(path.parent / "ram.img")
    short = load_specification(path)
    assert short.memory.image is None
    assert whole.model_copy(update={"memory": short.memory}) == short
    assert (short.memory.size, short.guest.working_set, short.guest.cpu_dirty_rate) == (1 << 30, 256 << 20, 100 << 20)
    assert short.device[0].devfn == 0x20
    assert short.device[0].dma_rate == 50 << 20


def test_an_agent_reads_what_another_wrote(path: Path) -> None:
    path.write_text(WHOLE)
    specification = load_specification(path)
    assert parse_specification(specification.to_json()) == specification
    document = json.loads(specification.to_json())
    assert document["memory"]["size"] == 1 << 30


def test_type1_has_no_dirty_bits_unless_somebody_asks(path: Path) -> None:
    path.write_text(SHORT + 'backend = "type1"\n')
    specification = load_specification(path)
    assert not specification.device[0].host_iommu_dirty_tracking
    assert parse_specification(specification.to_json()) == specification
    found = faults(path, SHORT + 'backend = "type1"\nhost_iommu_dirty_tracking = true\n')
    assert list(found) == ["device[0].host_iommu_dirty_tracking"]


def test_every_fault_and_every_impossible_combination_is_reported_at_once(path: Path) -> None:
    found = faults(
        path,
        """
        name = "../escape"
        kind = "xen"
        colour = "red"
        [memory]
        size = "64.001MiB"
        backing = "file"
        [viommu]
        aw_bits = 57
        caching_mode = false
        dma_translation = 1
        [guest]
        cpu_dirty_rate = "2GiB/s"
        working_set = "1GiB"
        vcpus = 0
        pattern = "random"
        [[device]]
        name = "qat0"
        model = "nvme"
        address = "00:04.8"
        dma_rate = "50MiB"
        [[device]]
        name = "qat0"
        address = "00:04.0"
        backend = "type1"
        host_iommu_dirty_tracking = true
        [[device]]
        name = "qat2"
        model = "qat"
        address = "00:04.0"
        """,
    )
    assert set(found) == {
        "name",
        "kind",
        "colour",
        "memory.size",
        "memory.path",
        "viommu.aw_bits",
        "viommu.caching_mode",
        "viommu.dma_translation",
        "guest.cpu_dirty_rate",
        "guest.vcpus",
        "guest.pattern",
        "device[0].model",
        "device[0].address",
        "device[0].dma_rate",
        "device[1].name",
        "device[1].model",
        "device[1].host_iommu_dirty_tracking",
        "device[2].address",
    }
    assert found["kind"].allowed == "'model' or 'qemu'"
    assert found["device[0].model"].allowed == "'qat', 'nic', 'gpu' or 'plain'"
    assert found["viommu.aw_bits"].allowed == "39 or 48"
    assert "name, kind, memory" in found["colour"].allowed
    assert "device[1].model: Required key is missing" in str(InvalidDocument(found.values()))


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ('memory.size = "1GiB"\n', "name", "Required"),
        ('name = "a"\n', "memory", "Required"),
        ('name = "a"\nmemory = 3\n', "memory", "Wrong type"),
        ('name = "a"\nmemory.size = "63MiB"\n', "memory.size", "Out of range"),
        ('name = "a"\nmemory.size = true\n', "memory.size", "Not a quantity"),
        ('name = "a"\nmemory.size = -4096\n', "memory.size", "Not a quantity"),
        ('name = "a"\nmemory = { size = "64MiB", path = "/dev/shm/x" }\n', "memory.path", "memfd"),
        ('name = "a"\nmemory = { size = "64MiB", image = "" }\n', "memory.image", "absolute"),
        ('name = "a"\nmemory.size = "64MiB"\ndevice = 3\n', "device", "list"),
        ('name = "a"\nmemory.size = "64MiB"\nrules.set = "v9"\n', "rules.set", "merged"),
        ('name = "a"\nmemory.size = "64MiB"\nguest.seed = -1\n', "guest.seed", "at least 0"),
        (SHORT + 'dma_rate = "fast"\n', "device[0].dma_rate", "such as"),
    ],
)
def test_one_fault(path: Path, text: str, key: str, words: str) -> None:
    found = faults(path, text)
    assert list(found) == [key]
    assert words in str(found[key])


USER = 'guest.user_driver = { device = "qat0" }\n'
DEVICE = '[[device]]\nname = "qat0"\nmodel = "qat"\naddress = "00:04.0"\n'
NIC = DEVICE.replace('model = "qat"', 'model = "nic"')
GPU = DEVICE.replace('model = "qat"', 'model = "gpu"')
ONE = 'name = "a"\nmemory.size = "1GiB"\n'


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (ONE + 'viommu = { first_stage = true, mode = "legacy" }\n', "viommu.first_stage", "scalable"),
        (ONE + "viommu = { first_stage = true, aw_bits = 39 }\n", "viommu.first_stage", "48"),
        (ONE + "viommu.first_stage = true\n" + DEVICE, "viommu.first_stage", "nesting"),
        (ONE + DEVICE + "device_dirty_tracking = true\n", "device[0].device_dirty_tracking", "no DMA log"),
        (ONE + GPU + "device_dirty_tracking = true\n", "device[0].device_dirty_tracking", "no DMA log"),
        (ONE + NIC + 'local_memory = "1GiB"\n', "device[0].local_memory", "gpu"),
        (ONE + GPU + 'local_memory = "5GiB"\n', "device[0].local_memory", "Out of range"),
        (ONE + GPU + "local_memory = 65537\n", "device[0].local_memory", "multiples of 64KiB"),
        (
            ONE + DEVICE + "mediated = true\nhost_iommu_dirty_tracking = true\n",
            "device[0].host_iommu_dirty_tracking",
            "mediated",
        ),
        (ONE + USER, "guest.user_driver.device", "No device"),
        (ONE + USER + DEVICE + "bypass_iommu = true\n", "guest.user_driver.device", "bypasses"),
        (ONE + USER + 'viommu.model = "none"\n' + DEVICE, "guest.user_driver.device", "translates"),
        (ONE + 'guest.churn.device = "nic9"\n' + DEVICE, "guest.churn.device", "qat0"),
        (ONE + 'guest.churn = { device = "qat0", buffer = 4097 }\n' + DEVICE, "guest.churn.buffer", "whole pages"),
        (ONE + "guest.dma_after_unmap = true\n" + NIC, "guest.dma_after_unmap", "accelerator"),
        ('name = "a"\nmemory.size = "193TiB"\n', "memory.size", "192TiB"),
    ],
)
def test_one_impossible_combination(path: Path, text: str, key: str, words: str) -> None:
    found = faults(path, text)
    assert list(found) == [key]
    assert words in str(found[key])


@pytest.mark.parametrize(
    "text",
    [
        ONE + "viommu.first_stage = true\n" + DEVICE + "bypass_iommu = true\n",
        ONE + USER + DEVICE,
        ONE + GPU + 'local_memory = "64KiB"\n',
        ONE + DEVICE + "mediated = true\n",
        'name = "a"\nmemory.size = "192TiB"\n' + DEVICE,
    ],
)
def test_what_can_be_is_no_fault(path: Path, text: str) -> None:
    path.write_text(text)
    specification = load_specification(path)
    assert parse_specification(specification.to_json()) == specification


def test_a_network_device_has_a_log_unless_it_is_said_otherwise(path: Path) -> None:
    path.write_text(ONE + NIC)
    assert load_specification(path).device[0].device_dirty_tracking
    path.write_text(ONE + NIC + "device_dirty_tracking = false\n")
    assert not load_specification(path).device[0].device_dirty_tracking


def test_devices_must_fit_into_the_memory() -> None:
    devices = [{"name": f"qat{n}", "model": "qat", "address": f"00:{n + 1:02x}.0"} for n in range(8)]
    document: dict[str, object] = {"name": "a", "memory": {"size": "64MiB"}, "device": devices}
    with pytest.raises(InvalidDocument, match="8 devices do not fit into 64MiB"):
        check_specification(document, "x")
    assert len(check_specification(document | {"memory": {"size": "1GiB"}}, "x").device) == 8


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b" " * (2 << 20), b'{"name": NaN}'])
def test_bytes_that_are_no_specification_are_faults(data: bytes) -> None:
    with pytest.raises(InvalidDocument):
        parse_specification(data)


def test_an_agent_takes_no_path_relative_to_nothing() -> None:
    with pytest.raises(InvalidDocument, match="absolute path"):
        parse_specification(b'{"name": "a", "memory": {"size": "64MiB", "image": "ram.img"}}')


WORDS = st.sampled_from(["", "a", "64MiB", "type1", "file", "intel", "none", "00:04.0", "\\0"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "size", "x", "backend"]), inner)
    ),
    max_leaves=6,
)


@example({"device": [{"name": []}]})
@example({"guest": {"dma_after_unmap": True}, "device": [{"model": []}]})
@example({"guest": {"churn": {"device": "a"}}, "device": [{"name": {}}, {"name": "a"}]})
@settings(max_examples=80)
@given(st.dictionaries(st.sampled_from([*MachineSpecification.model_fields, "other"]), values))
def test_any_document_is_a_specification_or_has_faults(document: dict[str, object]) -> None:
    try:
        specification = check_specification(document, "x")
    except InvalidDocument:
        return
    assert parse_specification(specification.to_json()) == specification
