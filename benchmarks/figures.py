"""Figures of a benchmark: each a row with its median, its spread, and what it must reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal


@dataclass(frozen=True, slots=True)
class Row:
    """One measure; `must` is compared with the median, or with the worst value where `worst` says so."""

    name: str
    unit: str
    values: tuple[float, ...]
    must: float | None = None
    better: Literal["higher", "lower"] = "higher"
    worst: bool = False
    note: str = ""

    @property
    def judged(self) -> float:
        """The value that is held against `must`."""
        if not self.worst:
            return median(self.values)
        return min(self.values) if self.better == "higher" else max(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether it is reached; None where nothing must be."""
        if self.must is None:
            return None
        return self.judged >= self.must if self.better == "higher" else self.judged <= self.must

    def document(self) -> dict[str, object]:
        """Return the row for the results file."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": median(self.values),
            "min": min(self.values),
            "max": max(self.values),
            "runs": len(self.values),
            "must": self.must,
            "reached": self.reached,
            "note": self.note,
        }


def ratios(values: Sequence[float], beside: Sequence[float]) -> tuple[float, ...]:
    """Return each value over the yardstick's of the same turn."""
    return tuple(value / other for value, other in zip(values, beside, strict=True))
