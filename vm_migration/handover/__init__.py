"""Who owns the machine: states, recovery, journal."""
