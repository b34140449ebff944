"""The specification of a QEMU machine: everything that is wrong with it at once, and nothing of a model's in it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.qemu_specification import QemuSpecification
from vmm.assembly.specification import check_specification, load_specification, parse_specification

WHOLE = """
name = "web"
kind = "qemu"
[memory]
size = "2GiB"
[qemu]
binary = "/usr/bin/qemu-system-x86_64"
machine = "pc-q35-7.2"
arguments = ["-cpu", "host", "-accel", "kvm", "-smp", "2"]
[[qemu.disk]]
name = "root"
file = "/srv/images/root.qcow2"
format = "qcow2"
shared = true
"""


def faults(text: str, folder: Path) -> dict[str, str]:
    path = folder / "machine.toml"
    path.write_text(text)
    with pytest.raises(InvalidDocument) as caught:
        load_specification(path)
    found = {fault.key: fault.problem for fault in caught.value.faults}
    assert len(found) == len(caught.value.faults)
    return found


def test_the_documented_one_is_read_and_travels(tmp_path: Path) -> None:
    path = tmp_path / "machine.toml"
    path.write_text(WHOLE)
    read = load_specification(path)
    assert read.qemu is not None
    assert (read.memory.size, read.qemu.machine, read.qemu.disk[0].shared) == (2 << 30, "pc-q35-7.2", True)
    assert parse_specification(read.to_json()) == read
    assert not {"viommu", "guest", "rules", "device"} & set(json.loads(read.to_json()))


def test_a_model_says_nothing_of_qemu() -> None:
    model = check_specification({"name": "model", "memory": {"size": "64MiB"}}, "")
    assert model.qemu is None
    assert "qemu" not in json.loads(model.to_json())


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = """
name = "web"
kind = "qemu"
[memory]
size = "1000KiB"
backing = "file"
path = "/dev/shm/ram"
[guest]
vcpus = 2
[qemu]
binary = "./qemu"
machine = "q35,memory-backend=mine"
arguments = ["-m", "1G", "--incoming", "defer", "", "-qmp", "-object", "memory-backend-ram,id=viaduct-ram"]
nonsense = 1
[[qemu.disk]]
name = "root"
file = "root.img"
[[qemu.disk]]
name = "root"
file = "/srv/root.img"
format = "vmdk"
"""
    found = faults(text, tmp_path)
    assert set(found) == {
        "memory.size", "memory.backing", "memory.path", "guest", "qemu.binary", "qemu.machine", "qemu.arguments[0]",
        "qemu.arguments[2]", "qemu.arguments[4]", "qemu.arguments[5]", "qemu.arguments[7]", "qemu.nonsense",
        "qemu.disk[0].file", "qemu.disk[1].name", "qemu.disk[1].format",
    }  # fmt: skip


@pytest.mark.parametrize("word", ["-action", "-chroot", "-gdb", "--gdb", "-readconfig", "-s", "-set"])
def test_an_option_that_lets_somebody_past_what_was_checked_is_refused(tmp_path: Path, word: str) -> None:
    text = f'name = "a"\nkind = "qemu"\nmemory.size = "64MiB"\n[qemu]\narguments = ["-nographic", "{word}", "x"]\n'
    assert set(faults(text, tmp_path)) == {"qemu.arguments[1]"}


def test_the_table_and_the_kind_belong_together(tmp_path: Path) -> None:
    assert "qemu" in faults('name = "a"\nkind = "qemu"\nmemory.size = "64MiB"\n', tmp_path)
    assert "qemu" in faults('name = "a"\nmemory.size = "64MiB"\n[qemu]\n', tmp_path)
    assert "kind" in faults('name = "a"\nkind = "xen"\nmemory.size = "64MiB"\n', tmp_path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*QemuSpecification.model_fields, "name", "file"]), inner, max_size=4)
        ),
    )
)
def test_whatever_the_table_holds_is_judged_and_never_crashed_on(table: object) -> None:
    document = {"name": "web", "kind": "qemu", "memory": {"size": "64MiB"}, "qemu": table}
    try:
        read = check_specification(document, "")
    except InvalidDocument:
        return
    else:
        assert parse_specification(read.to_json()) == read
