"""What a destination is known to take beside the least that every version takes."""

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(slots=True)
class Offered:
    """Nothing at first; what is learned counts from the next frame or round on, also in the middle of one."""

    cut_rounds: bool = False
    """A round may end before its pages have come."""
    compressed: bool = False
    """Pages may be compressed."""
    deltas: bool = False
    """Pages may come as what has changed in them."""
    digest_summed: bool = False
    """The digests of pages may stand for them in a frame's checksum."""

    def learn(self, features: Collection[str]) -> None:
        """Take what the destination says of itself."""
        self.cut_rounds = "cut-rounds" in features
        self.compressed = "frames-compressed" in features
        self.deltas = "frames-delta" in features
        self.digest_summed = "frames-digest-summed" in features
