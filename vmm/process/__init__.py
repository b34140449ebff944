"""`viaduct-vmm`: one process for each machine, with its control socket and its fence."""
