"""Intel VT-d: registers, tables in guest RAM, walk, invalidation queue, faults, and what they do to listeners.

::

    guest driver --writes--> tables in RAM <--reads-- translation.Translator (structures, walks, IOTLB, context cache)
         |                                                       |
         |               invalidator.Invalidator --> address_space.DeviceAddressSpace --> shadow.Shadow (IOVA tree)
         |                            |                          |
         '--registers--> intel.VtdUnit, invalidation queue       |
                              |                                  |
                     registers, faults, state           AddressSpaceListener (vmm.vfio)

A device's address space shows its listener either RAM as it is (translation off, or the guest's pass-through) or the
vIOMMU's mappings, which it keeps equal to the guest's tables at every invalidation. Nothing that a guest writes
raises out of this package, and no table or descriptor makes it work without bound.
"""
