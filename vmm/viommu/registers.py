"""The unit's registers: offsets, capabilities, and which bits software may write (semantics 4.3, 4.4).

An access has the width of the register at its offset: 64 bits for CAP, ECAP, RTADDR, CCMD, IQH, IQT, IQA, IRTA, IVA,
IOTLB and the recording registers, 32 bits for every other, the upper halves of the former among them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vmm.viommu.errors import UnsupportedConfiguration

VER: Final = 0x00
CAP: Final = 0x08
ECAP: Final = 0x10
GCMD: Final = 0x18
GSTS: Final = 0x1C
RTADDR: Final = 0x20
CCMD: Final = 0x28
CCMD_TOP: Final = 0x2C
FSTS: Final = 0x34
FECTL: Final = 0x38
FEDATA: Final = 0x3C
FEADDR: Final = 0x40
FEUADDR: Final = 0x44
IQH: Final = 0x80
IQT: Final = 0x88
IQA: Final = 0x90
ICS: Final = 0x9C
IECTL: Final = 0xA0
IEDATA: Final = 0xA4
IEADDR: Final = 0xA8
IEUADDR: Final = 0xAC
IRTA: Final = 0xB8
IVA: Final = 0xF0
IOTLB: Final = 0xF8
IOTLB_TOP: Final = 0xFC
FRCD_LOW: Final = 0x220
FRCD_HIGH: Final = 0x228
FRCD_TOP: Final = 0x22C
REGISTERS_SIZE: Final = 0x230

TE: Final = 1 << 31
SRTP: Final = 1 << 30
SFL: Final = 1 << 29
EAFL: Final = 1 << 28
WBF: Final = 1 << 27
QIE: Final = 1 << 26
IRE: Final = 1 << 25
SIRTP: Final = 1 << 24
CFI: Final = 1 << 23
CCMD_ICC: Final = 1 << 63
CCMD_CAIG: Final = 3 << 59
IOTLB_IVT: Final = 1 << 63
IOTLB_IAIG: Final = 3 << 57
RTADDR_SMT: Final = 1 << 10
IQA_DW: Final = 1 << 11
IRTA_EIME: Final = 1 << 11
FSTS_PFO: Final = 1 << 0
FSTS_PPF: Final = 1 << 1
FSTS_IQE: Final = 1 << 4
ICS_IWC: Final = 1 << 0
EVENT_MASKED: Final = 1 << 31
EVENT_PENDING: Final = 1 << 30

CAP_CM: Final = 1 << 7
CAP_SAGAW_39: Final = 1 << 9
CAP_SAGAW_48: Final = 1 << 10
CAP_LARGE_LEAVES: Final = 3 << 34
CAP_PSI: Final = 1 << 39
CAP_DRAIN: Final = 3 << 54
CAP_FS1GP: Final = 1 << 56
ECAP_QI: Final = 1 << 1
ECAP_DT: Final = 1 << 2
ECAP_IR: Final = 1 << 3
ECAP_EIM: Final = 1 << 4
ECAP_PT: Final = 1 << 6
ECAP_SC: Final = 1 << 7
ECAP_MHMV: Final = 15 << 20
ECAP_SRS: Final = 1 << 31
ECAP_PSS: Final = 7 << 35
"""PASIDs of 8 bits, which is what QEMU's memory transactions carry."""
ECAP_PASID: Final = 1 << 40
ECAP_SMTS: Final = 1 << 43
ECAP_SSTS: Final = 1 << 46
ECAP_FSTS: Final = 1 << 47
MAMV: Final = 18
"""The largest address mask of a page-selective invalidation: 2^18 pages."""

Deliver = Callable[[int, int], None]
"""Takes the address and the data of an interrupt message. It must not call the unit back: the write that caused the
message has not returned."""

_MESSAGES: Final = {FECTL: (FEADDR, FEUADDR, FEDATA), IECTL: (IEADDR, IEUADDR, IEDATA)}
_WIDE: Final = frozenset({CAP, ECAP, RTADDR, CCMD, IQH, IQT, IQA, IRTA, IVA, IOTLB, FRCD_LOW, FRCD_HIGH})
_ONES: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class VtdConfiguration:
    """What the unit is built with; the machine specification's `[viommu]` and QEMU's properties (semantics 4.2).

    `first_stage` (x-flts) offers first-stage tables in the place of second-stage ones to PASID entries; `fs1gp` then
    allows their leaves of 1 GiB. `stale_tm` with `device_iotlb` lets second-stage leaves have the old TM bit.
    `eim` None: wherever interrupts are remapped.
    """

    scalable: bool
    aw_bits: int
    caching_mode: bool
    dma_translation: bool
    reports_max_iova: bool
    first_stage: bool = False
    fs1gp: bool = True
    snoop_control: bool = False
    dma_drain: bool = True
    stale_tm: bool = False
    interrupt_remapping: bool = True
    eim: bool | None = None
    device_iotlb: bool = False
    pasid: bool = False

    @property
    def extended_interrupts(self) -> bool:
        """Whether interrupts may have 32-bit destinations."""
        return self.interrupt_remapping if self.eim is None else self.eim

    def check(self) -> None:
        """Say why there is no such unit.

        Raises:
            UnsupportedConfiguration: The properties exclude each other, or a value is none that exists (semantics 4.2;
                the rules of EIM, DMA draining and PASID with a device TLB are QEMU's).
        """
        refusals = (
            (self.aw_bits not in {39, 48}, f"Address width of the vIOMMU is 39 or 48, not {self.aw_bits}"),
            (self.first_stage and not self.scalable, "First-stage tables need the vIOMMU's scalable mode"),
            (self.first_stage and self.aw_bits != 48, "First-stage tables have 4 levels, which need 48 address bits"),
            (self.scalable and not self.dma_drain, "Scalable mode of the vIOMMU needs draining of DMA"),
            (self.pasid and not self.scalable, "PASIDs need the vIOMMU's scalable mode"),
            (self.pasid and self.device_iotlb, "PASIDs together with device TLBs are not supported"),
            (bool(self.eim) and not self.interrupt_remapping, "Extended interrupts need interrupt remapping"),
        )
        for refused, reason in refusals:
            if refused:
                raise UnsupportedConfiguration(reason)


def capabilities(configuration: VtdConfiguration) -> int:
    """Return CAP: 16-bit domain ids, page-selective invalidation, 2 MiB and 1 GiB leaves, one fault record."""
    value = 6 | CAP_PSI | MAMV << 48 | CAP_LARGE_LEAVES
    value |= (configuration.aw_bits - 1) << 16 | (FRCD_LOW >> 4) << 24
    if configuration.dma_drain:
        value |= CAP_DRAIN
    if configuration.caching_mode:
        value |= CAP_CM
    if configuration.dma_translation:
        value |= CAP_SAGAW_39 | (CAP_SAGAW_48 if configuration.aw_bits >= 48 else 0)
    if configuration.first_stage and configuration.fs1gp:
        value |= CAP_FS1GP
    return value


def extended_capabilities(configuration: VtdConfiguration) -> int:
    """Return ECAP: queued invalidation, pass-through, and what the configuration offers beside them.

    Neither supervisor requests nor second-stage tables are offered beside first-stage ones, as in QEMU.
    """
    value = ECAP_QI | ECAP_PT | (IVA >> 4) << 8
    if configuration.interrupt_remapping:
        value |= ECAP_IR | ECAP_MHMV
    if configuration.extended_interrupts:
        value |= ECAP_EIM
    if configuration.device_iotlb:
        value |= ECAP_DT
    if configuration.snoop_control:
        value |= ECAP_SC
    if configuration.first_stage:
        value |= ECAP_SMTS | ECAP_FSTS
    elif configuration.scalable:
        value |= ECAP_SMTS | ECAP_SRS | ECAP_SSTS
    if configuration.pasid:
        value |= ECAP_PASID | ECAP_PSS
    return value


def _writable(configuration: VtdConfiguration) -> dict[int, int]:
    scalable = configuration.scalable
    return {
        GCMD: 0xFFFF_FFFF,
        RTADDR: _ONES & ~0xFFF | (RTADDR_SMT if scalable else 0),
        CCMD: 0xE000_0003_FFFF_FFFF,
        FECTL: EVENT_MASKED,
        FEDATA: 0xFFFF,
        FEADDR: 0xFFFF_FFFC,
        FEUADDR: 0xFFFF_FFFF,
        IQT: 0x7FFF0,
        IQA: _ONES & ~0xFFF | 7 | (IQA_DW if scalable else 0),
        IECTL: EVENT_MASKED,
        IEDATA: 0xFFFF_FFFF,
        IEADDR: 0xFFFF_FFFC,
        IEUADDR: 0xFFFF_FFFF,
        IRTA: _ONES & ~0xFFF | 0x80F,
        IVA: _ONES & ~0xFFF | 0x7F,
        IOTLB: 0xB003_FFFF_0000_0000,
    }


_CLEARED_BY_ONE: Final = {FSTS: FSTS_PFO | FSTS_IQE, ICS: ICS_IWC, FRCD_HIGH: 1 << 63}


class RegisterFile:
    """The bytes of the registers, and the rules of writing them; what a write sets off is the unit's."""

    def __init__(self, configuration: VtdConfiguration, deliver: Deliver | None = None) -> None:
        self.events_sent = 0
        self._deliver: Final = deliver
        self._bytes: Final = bytearray(REGISTERS_SIZE)
        self._writable: Final = _writable(configuration)
        self.store(VER, 0x10)
        self.store(CAP, capabilities(configuration))
        self.store(ECAP, extended_capabilities(configuration))
        self.store(FECTL, EVENT_MASKED)
        self.store(IECTL, EVENT_MASKED)

    def read(self, offset: int) -> int:
        """Return what software reads: all ones where there is no register, 0 from GCMD, which is for writing only."""
        if not _addressed(offset):
            return _ONES
        return 0 if offset == GCMD else self.load(offset)

    def write(self, offset: int, value: int) -> bool:
        """Change the bits that software may change; return whether there is a register."""
        if not _addressed(offset):
            return False
        writable, clearing = self._rule(self._writable, offset), self._rule(_CLEARED_BY_ONE, offset)
        old = self.load(offset)
        self.store(offset, (old & ~writable | value & writable) & ~(value & clearing))
        return True

    def load(self, offset: int) -> int:
        """Return the register's bits as they are."""
        return int.from_bytes(self._bytes[offset : offset + _width(offset)], "little")

    def store(self, offset: int, value: int) -> None:
        """Set the register's bits, whether software may or not."""
        width = _width(offset)
        self._bytes[offset : offset + width] = (value & ((1 << width * 8) - 1)).to_bytes(width, "little")

    def raise_event(self, control: int) -> None:
        """Send the message-signalled interrupt of FECTL or IECTL, or leave it pending while that masks it."""
        value = self.load(control)
        if value & EVENT_MASKED:
            self.store(control, value | EVENT_PENDING)
        else:
            self._send(control)

    def release_event(self, control: int) -> None:
        """Send a pending message after software changed the mask."""
        if self.load(control) & (EVENT_MASKED | EVENT_PENDING) == EVENT_PENDING:
            self.clear_pending(control)
            self._send(control)

    def clear_pending(self, control: int) -> None:
        """Forget a pending message whose conditions software has served."""
        self.store(control, self.load(control) & ~EVENT_PENDING)

    def dump(self) -> bytes:
        """Return all registers."""
        return bytes(self._bytes)

    def restore(self, data: bytes) -> None:
        """Set all registers to what `dump` gave."""
        self._bytes[:] = data

    def _send(self, control: int) -> None:
        self.events_sent += 1
        if self._deliver is not None:
            low, high, data = map(self.load, _MESSAGES[control])
            self._deliver(high << 32 | low, data)

    @staticmethod
    def _rule(rules: dict[int, int], offset: int) -> int:
        rule = rules.get(offset)
        if rule is None and offset - 4 in _WIDE:
            return rules.get(offset - 4, 0) >> 32
        return rule or 0


def _width(offset: int) -> int:
    return 8 if offset in _WIDE else 4


def _addressed(offset: int) -> bool:
    return 0 <= offset < REGISTERS_SIZE and offset % 4 == 0
