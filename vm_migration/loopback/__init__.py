"""A whole site of real daemons on loopback, in a folder of its own: for a demonstration, for a laboratory."""
