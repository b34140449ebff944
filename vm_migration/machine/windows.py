"""For how long a machine may be looked at: what commands accept, and what agents hold themselves to."""

from typing import Final

from vm_migration.errors import InvalidInput

SHORTEST_WINDOW_MS: Final = 10
"""Of a dirty rate that somebody asks for."""
SHORTEST_SAMPLE_MS: Final = 100
"""Of what a forecast rests on: its slices have to tell something, too."""
LONGEST_WINDOW_MS: Final = 10_000
"""A machine is held for that long: nothing else is done to it."""


def require_measurable(measure_ms: int) -> None:
    """Accept a time for which a machine, or a host, is measured for a forecast; 0 measures nothing.

    Raises:
        InvalidInput: It is too short to tell anything, or a machine would be held for too long.
    """
    if measure_ms and not SHORTEST_SAMPLE_MS <= measure_ms <= LONGEST_WINDOW_MS:
        text = f"Measuring for {measure_ms} ms is not within {SHORTEST_SAMPLE_MS} and {LONGEST_WINDOW_MS} ms"
        raise InvalidInput("invalid-window", text, "Choose another --measure, or 0s for none")
