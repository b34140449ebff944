"""The daemon that takes machines in."""
