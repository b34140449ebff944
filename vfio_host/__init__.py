"""What the host kernel and the hardware are: containers, IO page tables, and devices that do DMA."""
