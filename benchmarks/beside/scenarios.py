"""What is moved, over which link, by whom: the rows of the table as data."""

from dataclasses import dataclass, replace
from typing import Final

from benchmarks.beside.content import Content
from benchmarks.beside.guest import GuestLoad
from benchmarks.beside.link import LinkName
from benchmarks.beside.qemu import QemuMode
from orchestrator.policy import Compression, MigrationPolicy, Transport, Verify

MIB: Final = 1 << 20
GIB: Final = 1 << 30

USUAL_RUNS: Final = 5
IPERF: Final = "iperf3, one stream"


@dataclass(frozen=True, slots=True)
class OurMode:
    """How we move it; an option that this version refuses is shown as not offered.

    With `plaintext` on a site of its own without certificates, in a scenario where everybody else of ours has TLS.
    """

    transport: Transport = "grpc"
    verify: Verify = "auto"
    compression: Compression = "auto"
    plaintext: bool = False
    streams: int = 1

    @property
    def name(self) -> str:
        """How the table calls it."""
        raw = ", compression none" if self.compression == "none" else ""
        bare = ", plaintext" if self.plaintext else ""
        wide = f", {self.streams} streams" if self.streams > 1 else ""
        return f"viaduct {self.transport}{wide}{', unverified' if self.verify == 'none' else ''}{raw}{bare}"

    def policy(self, limit_ms: int, timeout_s: float) -> MigrationPolicy:
        """Return the attempt's policy; everything else is as users have it."""
        return MigrationPolicy(
            transport=self.transport,
            verify=self.verify,
            compression=self.compression,
            streams=self.streams,
            downtime_limit_ms=limit_ms,
            timeout_ms=int(1000 * timeout_s),
        )


IDLE: Final = GuestLoad()
GRPC: Final = OurMode()
DIRECT: Final = OurMode("direct")
SEALED: Final = OurMode("sealed")
UNVERIFIED: Final = OurMode(verify="none")
UNCOMPRESSED: Final = OurMode(compression="none")
DIRECT_UNCOMPRESSED: Final = OurMode("direct", compression="none")
PLAINTEXT: Final = OurMode(plaintext=True)
CARRIED: Final = OurMode(verify="none", compression="none")
CARRIED_BY_TWO: Final = OurMode(verify="none", compression="none", streams=2)
CARRIED_OPENLY: Final = OurMode(verify="none", compression="none", plaintext=True)
CARRIED_OPENLY_BY_TWO: Final = OurMode(verify="none", compression="none", streams=2, plaintext=True)
BY_ITSELF: Final = OurMode("direct", verify="none", compression="none")
BY_ITSELF_BY_TWO: Final = OurMode("direct", verify="none", compression="none", streams=2)
PLAIN: Final = QemuMode()
MULTIFD_AS_STARTED: Final = QemuMode(2)
PLAIN_READY: Final = QemuMode(prealloc=True)
MULTIFD_2: Final = QemuMode(2, prealloc=True)
MULTIFD_4: Final = QemuMode(4, prealloc=True)
SECURED: Final = tuple(QemuMode(channels, prealloc=True, tls=True) for channels in (0, 2, 4))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One machine on one link, and everybody who moves it in turn. Sizes in bytes."""

    name: str
    link: LinkName
    size: int
    content: Content
    tls: bool
    ours: tuple[OurMode, ...]
    peers: tuple[QemuMode, ...] = ()
    load: GuestLoad = IDLE
    limit_ms: int = 300
    timeout_s: float = 120.0
    iperf: bool = False
    watch_memory: bool = False
    real: bool = False
    """Our machine is a QEMU too, which the agents move."""
    first_runs: int = 0
    """Turns of the first of ours where `runs` are as many as usual: more than the others have, or fewer for all."""

    def turns(self, runs: int) -> int:
        """Return how many turns count where so many are asked for."""
        return max(1, self.first_runs * runs // USUAL_RUNS) if self.first_runs else runs

    def sized(self, size: int) -> "Scenario":
        """Return the same in small, to see that it works."""
        return replace(self, size=min(self.size, size)) if size else self

    def secures(self, mode: OurMode) -> bool:
        """Return whether one of ours has TLS here."""
        return self.tls and not mode.plaintext

    def specification(self, image: str) -> dict[str, object]:
        """Return our machine: no device, so that both sides move RAM and nothing else."""
        return {
            "name": "bench",
            "memory": {"size": self.size, "image": image},
            "guest": {"cpu_dirty_rate": self.load.rate, "working_set": self.load.working_set},
        }


SCENARIOS: Final = (
    Scenario(
        name="loopback", link="loopback", size=2 * GIB, content="incompressible", tls=False,
        ours=(GRPC, DIRECT, UNVERIFIED, UNCOMPRESSED, DIRECT_UNCOMPRESSED),
        peers=(PLAIN, PLAIN_READY, MULTIFD_2, MULTIFD_4), iperf=True,
    ),
    Scenario(
        name="loopback-tls", link="loopback", size=2 * GIB, content="incompressible", tls=True,
        ours=(GRPC, DIRECT, SEALED), peers=SECURED,
    ),
    Scenario(
        name="gigabit-booted", link="1 Gbit/s", size=2 * GIB, content="booted", tls=True,
        ours=(GRPC, DIRECT, SEALED, UNCOMPRESSED), peers=(PLAIN_READY, MULTIFD_2), iperf=True,
    ),
    Scenario(
        name="gigabit-busy", link="1 Gbit/s", size=GIB, content="incompressible", tls=True,
        ours=(GRPC, DIRECT, UNCOMPRESSED), peers=(PLAIN_READY, MULTIFD_2), load=GuestLoad(60 * MIB, 200 * MIB),
        first_runs=20,
    ),
    Scenario(
        name="memory-1", link="loopback", size=GIB, content="mostly-zero", tls=True,
        ours=(GRPC, DIRECT), watch_memory=True, first_runs=2,
    ),
    Scenario(
        name="memory-8", link="loopback", size=8 * GIB, content="mostly-zero", tls=True,
        ours=(GRPC, DIRECT), watch_memory=True, first_runs=2,
    ),
)  # fmt: skip
QEMU_LOOPBACK: Final = Scenario(
    name="qemu-loopback", link="loopback", size=2 * GIB, content="incompressible", tls=True, real=True,
    ours=(CARRIED, CARRIED_BY_TWO, CARRIED_OPENLY, CARRIED_OPENLY_BY_TWO, BY_ITSELF, BY_ITSELF_BY_TWO),
    peers=(PLAIN, PLAIN_READY, MULTIFD_AS_STARTED, MULTIFD_2, *SECURED[:2]),
)  # fmt: skip
QEMU_GIGABIT: Final = Scenario(
    name="qemu-gigabit", link="1 Gbit/s", size=2 * GIB, content="incompressible", tls=True, real=True,
    ours=(CARRIED,), peers=(PLAIN_READY,),
)  # fmt: skip
"""Of real machines, which the agents move: benchmarks.qemu_machines has their rows."""
SECURITY: Final = Scenario(
    name="security", link="loopback", size=2 * GIB, content="incompressible", tls=True,
    ours=(GRPC, PLAINTEXT), peers=(PLAIN_READY, SECURED[0]),
)  # fmt: skip
"""What TLS costs: benchmarks.security has its rows, docs/reliability.md its table."""


def named(name: str) -> Scenario:
    """Return a scenario.

    Raises:
        KeyError: There is none of this name.
    """
    return {each.name: each for each in (*SCENARIOS, SECURITY, QEMU_LOOPBACK, QEMU_GIGABIT)}[name]
