"""The devices of this host, each a step function that does DMA through the IO page table only."""
