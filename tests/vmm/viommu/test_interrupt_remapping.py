"""Interrupt messages through the remapping table, and every way in which one is refused (VT-d 5.1, semantics 4.8)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmm.memory.guest_physical import GuestMemory
from vmm.memory.ram_block import RamBlock
from vmm.viommu import registers as reg
from vmm.viommu.faults import Fault, FaultReason, FaultRecorder
from vmm.viommu.interrupt_remapping import InterruptMessage, InterruptTable, RefusedInterrupt, remap
from vmm.viommu.registers import RegisterFile, VtdConfiguration

RAM = 1 << 20
AT = 0x8000
SOURCE = 0x0218
VECTOR = 0x41
LEVEL = 1 << 14


@pytest.fixture
def memory() -> GuestMemory:
    return GuestMemory(RamBlock.create("interrupts", RAM))


def table(entries: int = 16, *, extended: bool = False, compatibility: bool = False) -> InterruptTable:
    return InterruptTable(AT, entries, extended, compatibility)


def request(index: int, *, subhandle: int | None = None, kept: int = 0) -> InterruptMessage:
    address = 0xFEE00000 | (index & 0x7FFF) << 5 | 1 << 4 | (index >> 15) << 2 | kept
    return InterruptMessage(address | (subhandle is not None) << 3, subhandle or 0)


def entry(memory: GuestMemory, index: int, low: int, high: int = 0) -> None:
    memory.write_u64(AT + index * 16, low)
    memory.write_u64(AT + index * 16 + 8, high)


def refusal(result: InterruptMessage | RefusedInterrupt) -> Fault:
    assert isinstance(result, RefusedInterrupt)
    return result.fault


def test_without_a_table_a_message_stays_as_it_is(memory: GuestMemory) -> None:
    message = InterruptMessage(0xFEE01004, 0x4031)
    assert remap(memory, None, message, SOURCE) == message


def test_an_entry_describes_the_message(memory: GuestMemory) -> None:
    # Logical destination 5 with the redirection hint, level-triggered, lowest priority.
    entry(memory, 3, 5 << 40 | VECTOR << 16 | 1 << 5 | 1 << 4 | 1 << 3 | 1 << 2 | 1)
    found = remap(memory, table(), request(3, kept=2), SOURCE)
    assert found == InterruptMessage(0xFEE0500E, VECTOR | 1 << 8 | LEVEL | 1 << 15)


def test_destinations_of_32_bits(memory: GuestMemory) -> None:
    entry(memory, 0, 0x12345 << 32 | VECTOR << 16 | 1)
    found = remap(memory, table(extended=True), request(0), SOURCE)
    assert found == InterruptMessage(0x00012300_FEE45000, VECTOR | LEVEL)


def test_the_subhandle_counts_from_the_handle(memory: GuestMemory) -> None:
    entry(memory, 7, VECTOR << 16 | 1)
    assert remap(memory, table(), request(4, subhandle=3), SOURCE) == InterruptMessage(0xFEE00000, VECTOR | LEVEL)


def test_the_handle_has_sixteen_bits(memory: GuestMemory) -> None:
    entry(memory, 0x8001, VECTOR << 16 | 1)
    assert isinstance(remap(memory, table(1 << 16), request(0x8001), SOURCE), InterruptMessage)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (InterruptMessage(1 << 32 | 0xFEE00010, 0), 0x20),
        (InterruptMessage(0xFED00010, 0), 0x20),
        (InterruptMessage(0xFEE00018, 1 << 16), 0x20),
        (request(16), 0x21),
        (request(15, subhandle=0xFFFF), 0x21),
        (InterruptMessage(0xFEE01000, 0x31), 0x25),
    ],
)
def test_requests_that_name_no_entry(memory: GuestMemory, message: InterruptMessage, code: int) -> None:
    fault = refusal(remap(memory, table(), message, SOURCE))
    assert (fault.reason, fault.reported) == (code, True)


@pytest.mark.parametrize("compatibility", [False, True])
@pytest.mark.parametrize("extended", [False, True])
def test_compatibility_format_passes_only_where_it_may(
    memory: GuestMemory, compatibility: bool, extended: bool
) -> None:
    message = InterruptMessage(0xFEE01000, 0x31)
    found = remap(memory, table(extended=extended, compatibility=compatibility), message, SOURCE)
    if compatibility and not extended:
        assert found == message
    else:
        assert refusal(found).reason == FaultReason.INTERRUPT_COMPATIBILITY


def test_a_table_outside_ram(memory: GuestMemory) -> None:
    outside = InterruptTable(RAM, 16, extended=False)
    assert refusal(remap(memory, outside, request(0), SOURCE)).reason == FaultReason.INTERRUPT_TABLE_ACCESS


@pytest.mark.parametrize(
    ("low", "high", "code"),
    [
        (VECTOR << 16, 0, 0x22),
        (1 << 12 | 1, 0, 0x24),
        (1 << 15 | 1, 0, 0x24),  # posted
        (1 << 24 | 1, 0, 0x24),
        (1, 1 << 20, 0x24),
        (1, 1 << 18 | 0x0219, 0x26),
        (1, 2 << 18 | 0x0503, 0x26),  # buses 3 to 5
        (1, 3 << 18 | SOURCE, 0x26),
    ],
)
def test_entries_that_refuse(memory: GuestMemory, low: int, high: int, code: int) -> None:
    entry(memory, 2, low, high)
    found = remap(memory, table(), request(2), SOURCE)
    assert found == RefusedInterrupt(Fault(FaultReason(code)), 2)
    entry(memory, 2, low | 2, high)
    fault = refusal(remap(memory, table(), request(2), SOURCE))
    assert (fault.reason, fault.reported) == (code, False)


@pytest.mark.parametrize(
    "high",
    [0x9999, 1 << 18 | SOURCE, 1 << 18 | 1 << 16 | SOURCE ^ 4, 1 << 18 | 3 << 16 | SOURCE ^ 7, 2 << 18 | 0x0502],
)
def test_sources_that_an_entry_admits(memory: GuestMemory, high: int) -> None:
    entry(memory, 2, VECTOR << 16 | 1, high)
    assert isinstance(remap(memory, table(), request(2), SOURCE), InterruptMessage)


def test_the_record_of_a_refused_interrupt_names_its_index() -> None:
    registers = RegisterFile(VtdConfiguration(True, 48, True, True, True))
    recorder = FaultRecorder(registers)
    assert recorder.record_interrupt(SOURCE, 0x1234, reason=FaultReason.INTERRUPT_SOURCE)
    assert registers.load(reg.FRCD_LOW) == 0x1234 << 48
    assert registers.load(reg.FRCD_HIGH) == 1 << 63 | 0x26 << 32 | SOURCE


@given(
    st.binary(min_size=64, max_size=64),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, 0xFFFF),
    st.booleans(),
)
@settings(max_examples=200)
def test_no_message_and_no_table_raises(contents: bytes, address: int, data: int, source: int, extended: bool) -> None:
    memory = GuestMemory(RamBlock.create("interrupts", 1 << 16))
    memory.write(AT, contents)
    for message in (InterruptMessage(address, data), request(address & 3), request(address & 3, subhandle=data & 1)):
        found = remap(memory, table(4, extended=extended), message, source)
        if isinstance(found, InterruptMessage):
            assert found.address >> 20 & 0xFFF == 0xFEE
            assert found.data <= 0xFFFF
        else:
            assert 0x20 <= found.fault.reason <= 0x26
