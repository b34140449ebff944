"""What the hypervisor and its guest are: RAM, virtual IOMMU, the hypervisor's side of VFIO, and the guest."""
