"""Viaduct beside QEMU's own migration and iperf3, on the same path in the same run."""
