"""The command line and the daemon that decide and drive."""
