"""VFIO on the hypervisor's side: listener, dirty tracking, blockers, device migration."""
