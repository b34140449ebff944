"""Rounds, barriers, convergence, apply, verify: engines without I/O."""
