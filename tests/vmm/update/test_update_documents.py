"""What travels at an update: canonical, versioned, and judged as a whole."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.assembly.machine_state import Origin
from vmm.assembly.specification import MachineSpecification, parse_specification
from vmm.update.documents import (
    ContainerRecord,
    DeviceRecord,
    EarlyDocument,
    InvalidHandover,
    StateDocument,
    decode,
    descriptor_names,
    encode,
    require_fit,
)

MACHINE = "0b6d2c54-4c0e-4f4e-9d0c-3d6a1b1f2e01"
CONTAINERS = (ContainerRecord("iommufd", 2), ContainerRecord("type1", 7))
DEVICES = (DeviceRecord("qat0", 0, 1, 3), DeviceRecord("nic0", 1, 0, 0))
EARLY = EarlyDocument(
    1, MACHINE, 64 << 20, 5, CONTAINERS, DEVICES, descriptor_names(CONTAINERS, [each.name for each in DEVICES])
)
STATE = StateDocument(
    1, 4, 2, 9, -1, Origin("mixture", ("text",), "ab"), b"unit", b"guest", (((0, 4096, 0, True),), ())
)
RECORDED = Path(__file__).parent / "recorded"


def specification() -> MachineSpecification:
    devices = [
        {"name": "qat0", "model": "qat", "address": "00:04.0"},
        {"name": "nic0", "model": "nic", "address": "00:05.0", "backend": "type1"},
    ]
    document = {"name": "updated", "memory": {"size": 64 << 20}, "device": devices}
    return parse_specification(json.dumps(document).encode())


def test_a_state_that_was_recorded_is_read_for_as_long_as_its_format_is() -> None:
    assert decode((RECORDED / "early-1.msgpack").read_bytes(), EarlyDocument) == EARLY
    assert decode((RECORDED / "state-1.msgpack").read_bytes(), StateDocument) == STATE


@given(st.binary(max_size=60))
def test_bytes_that_are_no_document_are_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(InvalidHandover):
        decode(data, EarlyDocument)
    with pytest.raises(InvalidHandover):
        decode(data, StateDocument)


@given(st.integers(0, len(encode(STATE)) - 1), st.integers(1, 255))
def test_a_byte_that_changed_is_another_state_or_none(place: int, change: int) -> None:
    data = bytearray(encode(STATE))
    data[place] ^= change
    try:
        found = decode(data, StateDocument)
    except InvalidHandover:
        return
    assert found != STATE
    assert encode(found) == bytes(data)


def test_a_format_that_this_version_does_not_read_is_named() -> None:
    later = msgspec.msgpack.encode([2, "and what nobody knows yet"])
    with pytest.raises(InvalidHandover, match="EarlyDocument is of a format that this version does not read"):
        decode(later, EarlyDocument)


def test_a_document_that_is_not_in_its_only_form_is_refused() -> None:
    wordy = encode(EARLY).replace(b"\x01", b"\xcd\x00\x01", 1)
    with pytest.raises(InvalidHandover):
        decode(wordy, EarlyDocument)


def test_a_machine_that_fits_is_taken() -> None:
    require_fit(EARLY, specification(), MACHINE, len(EARLY.descriptors))


def test_everything_that_does_not_fit_is_told_at_once() -> None:
    wrong = msgspec.structs.replace(
        EARLY,
        machine="another",
        ram_bytes=4096,
        devices=(DeviceRecord("qat0", 1, 1, 3), DeviceRecord("nic1", 2, 0, 0)),
    )
    with pytest.raises(InvalidHandover) as caught:
        require_fit(wrong, specification(), MACHINE, 3)
    text = str(caught.value)
    for said in (
        "Machine another",
        "RAM has 4096 bytes",
        "Devices are qat0, nic1",
        "Device qat0 is on type1",
        "Device nic1 is in container 2 of 2",
        "3 descriptors came",
    ):
        assert said in text


def test_descriptors_in_another_order_are_refused() -> None:
    turned = msgspec.structs.replace(EARLY, descriptors=EARLY.descriptors[::-1])
    with pytest.raises(InvalidHandover, match="descriptors came"):
        require_fit(turned, specification(), MACHINE, len(EARLY.descriptors))
