"""What two hosts agree on: wire, link, handover, transfer, the machine port, the life of a daemon."""
