"""Which version of the hypervisor's rules a machine follows: a rule set, and one switch for each fix.

A switch stands for a patch. With it off the model behaves as QEMU did before that patch, so that what the patch mends
can be seen. Numbers in brackets are the documents in docs/lab.md: [0] the merged series and its patches, [1] and [2]
the reviews, [3] the series of May 2023 that was never merged as such.

============================== ====================================================================================
`query_before_unmap`           [0] patch 2: iommufd's dirty bits are read before the mapping that holds them goes
`no_clear_on_unmap_query`      [0] patch 5: that last query does not clear, which spares an IOTLB flush
`unmap_by_mapping`             [0] patch 6: a blocked domain is unmapped mapping by mapping, not by 2^n chunks
`track_region_del`             [0] patch 7: RAM that leaves an address space is queried before it is unmapped
`fail_on_query_error`          [0] v3: a bitmap query that fails, fails the migration
`large_memory_blocker`         [0] patch 8: RAM over the container's bitmap limit is refused beforehand
`relaxed_viommu_check`         [0] patch 9: a vIOMMU blocks only devices that track by their own log
`type1_is_not_iommu_dirty_tracking` [1]: type1's tracker does not count as the host IOMMU's; the rejected patch off
`type1_dirty_pages_supported`  [1]: type1 offers a tracker at all; false is the other way out that is discussed there
`logger_ranges_cover_iova_space` [3] patches 9 to 12: behind a vIOMMU a device logs [0, max IOVA]
`interrupt_only_viommu_allowed` [3] patches 6 to 8: a vIOMMU that only remaps interrupts is none for migration
`address_width_blocker`        [3] patch 15: a vIOMMU that reports no address width is refused
`unmap_events_carry_address`   no patch: an UNMAP that a walk finds names what was mapped, not what the entry holds now
============================== ====================================================================================
"""

from dataclasses import dataclass
from enum import StrEnum


class RuleSet(StrEnum):
    """`merged` is what was applied; `vfio-viommu-v3` adds the series of [3], whose switches mean nothing without it."""

    MERGED = "merged"
    VFIO_VIOMMU_V3 = "vfio-viommu-v3"


@dataclass(frozen=True, slots=True)
class Rules:
    """A rule set with its switches; all on is how it was meant."""

    set: RuleSet = RuleSet.MERGED
    query_before_unmap: bool = True
    no_clear_on_unmap_query: bool = True
    unmap_by_mapping: bool = True
    track_region_del: bool = True
    fail_on_query_error: bool = True
    large_memory_blocker: bool = True
    relaxed_viommu_check: bool = True
    type1_is_not_iommu_dirty_tracking: bool = True
    type1_dirty_pages_supported: bool = True
    logger_ranges_cover_iova_space: bool = True
    interrupt_only_viommu_allowed: bool = True
    address_width_blocker: bool = True
    unmap_events_carry_address: bool = True

    @property
    def v3(self) -> bool:
        """Whether the series of [3] is applied."""
        return self.set is RuleSet.VFIO_VIOMMU_V3
