"""`viaduct-vfio-host`: one process for each machine, in which the devices run beside the guest."""
