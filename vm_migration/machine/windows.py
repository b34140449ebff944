"""For how long a machine may be looked at: what commands accept, and what agents hold themselves to."""

from typing import Final

SHORTEST_WINDOW_MS: Final = 10
"""Of a dirty rate that somebody asks for."""
SHORTEST_SAMPLE_MS: Final = 100
"""Of what a forecast rests on: its slices have to tell something, too."""
LONGEST_WINDOW_MS: Final = 10_000
"""A machine is held for that long: nothing else is done to it."""
