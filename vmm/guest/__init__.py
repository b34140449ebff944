"""What runs inside the machine: vCPU workload, VT-d driver, accelerator driver."""
