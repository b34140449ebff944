"""The host's devices, each a step function over its IO page table, and their migration drivers."""
