"""100,000 damaged frames against a destination's own intake: how many were taken, what broke, what memory it cost.

Most are tried at the intake itself, as messages of gRPC and as bytes of a direct stream, with the right frames between
them; a share travels over real connections with certificates, each on a stream of its own (tests.damaged_frames).
"""

import secrets
from pathlib import Path
from typing import Final

from benchmarks.figures import Row
from tests.damaged_frames.over_connections import TRANSPORTS, over_connections
from tests.damaged_frames.trying import Tally, at_the_intake

COUNT: Final = 100_000
_SHARE: Final = 100
"""One in so many travels over each kind of connection."""
_FLAT_MIB: Final = 32.0
TRIED: Final = "damaged, reordered, replayed and oversized frames tried"
ACCEPTED: Final = "of these, accepted wrongly"
CRASHES: Final = "of these, ended otherwise than by a refusal"
GROWN: Final = "memory of the process more at the end than after a tenth"


async def measure(folder: Path, count: int = COUNT, seed: int | None = None) -> list[Row]:
    """Try so many and return what came of them; each that was not refused is in a note."""
    seed = secrets.randbits(32) if seed is None else seed
    tally = Tally()
    for transport in TRANSPORTS:
        place = folder / transport
        place.mkdir()
        tally.add(await over_connections(place, transport, count // _SHARE, seed))
    connected = tally.tried.total()
    tally.add(await at_the_intake(folder, count - connected, seed))
    kinds = ", ".join(f"{kind} {tried}" for kind, tried in sorted(tally.tried.items()))
    note = f"{kinds}; {connected} over connections, {tally.right} right ones between them; seed {seed}"
    return [
        Row(TRIED, "frames", (float(tally.tried.total()),), must=float(count), note=note),
        Row(
            ACCEPTED,
            "frames",
            (float(len(tally.accepted)),),
            must=0,
            better="lower",
            note="; ".join(tally.accepted[:5]),
        ),
        Row(CRASHES, "frames", (float(len(tally.crashed)),), must=0, better="lower", note="; ".join(tally.crashed[:5])),
        Row(GROWN, "MiB", (tally.grown / (1 << 20),), must=_FLAT_MIB, better="lower"),
    ]
