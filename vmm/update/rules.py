"""One switch for each patch by which a machine's process is updated (document [4] in docs/lab.md; semantics 9.7).

With a switch off the model does what QEMU did before that patch, so that what the patch mends can be seen. Only the
laboratory turns one off. The number is the patch's in the series; those without one were applied before its V6.

============================== ====================================================================================
`preserve_descriptors`         15: devices and containers come as descriptors, and nothing is opened a second time
`reconstruct_device`           16: a device that is bound, or a container that is set up, is not set up again
`reconstruct_hwpt`             17: the page table that a device is attached to is found again by its id
`preserve_mappings`            19: what a new process would map and unmap while it is assembled is not done
`skip_reset`                   a device is not reset by who takes it over
`abandon_addresses`            type1: the old process lets go of its user addresses, without unmapping
`register_addresses`           type1: the new one registers its own, and its locked memory is counted as its own
`change_process`               18: iommufd: the mappings become those of the new process
`preserve_interrupts`          1, 2: eventfds and doorbells are those that the devices raise and hear
`close_kvm_after_update`       3: the old process gives its interrupts up before the new one takes them
============================== ====================================================================================
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UpdateRules:
    """The switches; all on is how it is meant."""

    preserve_descriptors: bool = True
    reconstruct_device: bool = True
    reconstruct_hwpt: bool = True
    preserve_mappings: bool = True
    skip_reset: bool = True
    abandon_addresses: bool = True
    register_addresses: bool = True
    change_process: bool = True
    preserve_interrupts: bool = True
    close_kvm_after_update: bool = True


ALL_ON = UpdateRules()
