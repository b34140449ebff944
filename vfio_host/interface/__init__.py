"""What the hypervisor may know of the host: the calls, their structures, errnos, and the devices' data sheets."""
