"""A prediction beside its outcome, as a value: what the runner writes and the table is made from."""

from typing import Literal

import msgspec


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was expected of a figure, with its bounds, and what it was, all in milliseconds."""

    expected: float
    low: float
    high: float
    outcome: float

    @property
    def error(self) -> float:
        """How far the outcome is from what was expected, as a share of the outcome."""
        return abs(self.expected - self.outcome) / self.outcome if self.outcome > 0 else float("inf")

    @property
    def within_bounds(self) -> bool:
        """Whether the outcome lies where it was said to."""
        return self.low <= self.outcome <= self.high


class Prediction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of the grid; one that did not complete, or was not predicted, says why and counts as wrong."""

    run: str
    completed: bool
    why: str = ""
    total: Expectation | None = None
    downtime: Expectation | None = None
    expected_rounds: int = 0
    rounds: int = 0
    expected_prepare_ms: float = 0.0
    prepare_ms: float = 0.0
    """Of the total, what the destination took to make its memory ready: on a shared host what varies most."""
    assumed: bool = False
    """Whether the link's rate was assumed: no earlier attempt had measured it."""


def within(prediction: Prediction, figure: Literal["total", "downtime"], tolerance: float) -> bool:
    """Tell whether a figure came out within a share of what it was."""
    told = prediction.total if figure == "total" else prediction.downtime
    return prediction.completed and told is not None and told.error <= tolerance
