"""What CAP and ECAP say of each configuration, and which configurations there are (semantics 4.2, 4.3)."""

from dataclasses import replace

import pytest

from vmm.viommu import registers as reg
from vmm.viommu.errors import UnsupportedConfiguration
from vmm.viommu.registers import VtdConfiguration, capabilities, extended_capabilities

LEGACY = VtdConfiguration(scalable=False, aw_bits=39, caching_mode=False, dma_translation=True, reports_max_iova=True)
SCALABLE = replace(LEGACY, scalable=True, aw_bits=48)


def test_the_registers_of_the_plainest_unit() -> None:
    assert capabilities(LEGACY) == 0x00D2_008C_2226_0206
    assert extended_capabilities(LEGACY) == 0xF0_0F5A


def test_the_registers_of_a_scalable_unit() -> None:
    assert capabilities(SCALABLE) == 0x00D2_008C_222F_0606
    assert extended_capabilities(SCALABLE) == 0x4800_80F0_0F5A


@pytest.mark.parametrize(
    ("configuration", "bits"),
    [
        (replace(LEGACY, caching_mode=True), reg.CAP_CM),
        (replace(LEGACY, dma_drain=False), reg.CAP_DRAIN),
        (replace(LEGACY, dma_translation=False), reg.CAP_SAGAW_39),
    ],
)
def test_bits_of_cap(configuration: VtdConfiguration, bits: int) -> None:
    assert capabilities(configuration) ^ capabilities(LEGACY) == bits


@pytest.mark.parametrize(
    ("configuration", "bits"),
    [
        (replace(SCALABLE, snoop_control=True), reg.ECAP_SC),
        (replace(SCALABLE, device_iotlb=True), reg.ECAP_DT),
        (replace(SCALABLE, eim=False), reg.ECAP_EIM),
        (replace(SCALABLE, interrupt_remapping=False), reg.ECAP_IR | reg.ECAP_EIM | reg.ECAP_MHMV),
        (replace(SCALABLE, pasid=True), reg.ECAP_PASID | reg.ECAP_PSS),
        (replace(SCALABLE, first_stage=True), reg.ECAP_SRS | reg.ECAP_SSTS | reg.ECAP_FSTS),
        (replace(SCALABLE, stale_tm=True), 0),
    ],
)
def test_bits_of_ecap(configuration: VtdConfiguration, bits: int) -> None:
    assert extended_capabilities(configuration) ^ extended_capabilities(SCALABLE) == bits


@pytest.mark.parametrize("first_stage", [False, True])
@pytest.mark.parametrize("huge", [False, True])
def test_leaves_of_1_gib_are_the_first_stages(first_stage: bool, huge: bool) -> None:
    value = capabilities(replace(SCALABLE, first_stage=first_stage, fs1gp=huge))
    assert bool(value & reg.CAP_FS1GP) == (first_stage and huge)


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        (replace(LEGACY, aw_bits=57), "39 or 48, not 57"),
        (replace(LEGACY, aw_bits=0), "39 or 48, not 0"),
        (replace(LEGACY, aw_bits=48, first_stage=True), "scalable"),
        (replace(SCALABLE, aw_bits=39, first_stage=True), "48 address bits"),
        (replace(SCALABLE, dma_drain=False), "draining"),
        (replace(LEGACY, pasid=True), "scalable"),
        (replace(SCALABLE, pasid=True, device_iotlb=True), "device TLBs"),
        (replace(LEGACY, eim=True, interrupt_remapping=False), "interrupt remapping"),
    ],
)
def test_configurations_that_there_are_not(configuration: VtdConfiguration, said: str) -> None:
    with pytest.raises(UnsupportedConfiguration, match=said):
        configuration.check()


@pytest.mark.parametrize(
    "configuration",
    [
        LEGACY,
        SCALABLE,
        replace(SCALABLE, first_stage=True, fs1gp=False, pasid=True),
        replace(LEGACY, dma_drain=False, snoop_control=True, device_iotlb=True, stale_tm=True),
        replace(LEGACY, interrupt_remapping=False, dma_translation=False),
    ],
)
def test_configurations_that_there_are(configuration: VtdConfiguration) -> None:
    configuration.check()
