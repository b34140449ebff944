"""What QEMU answers to what it is asked, as far as anybody here reads it. Source: QEMU's QMP reference, 7.2 to 10.0."""

import msgspec


class Status(msgspec.Struct, frozen=True):
    """query-status."""

    status: str
    running: bool


class RamFigures(msgspec.Struct, frozen=True, rename="kebab"):
    """What query-migrate says of RAM; bytes, pages where it says so."""

    transferred: int = 0
    remaining: int = 0
    total: int = 0
    dirty_pages_rate: int = 0
    dirty_sync_count: int = 0
    page_size: int = 4096
    mbps: float = 0.0


class SocketAddress(msgspec.Struct, frozen=True):
    """Where something listens; of a unix socket neither is there."""

    host: str = ""
    port: str = ""


class Migration(msgspec.Struct, frozen=True, rename="kebab"):
    """query-migrate; without a status nothing was ever started. Milliseconds."""

    status: str = "none"
    ram: RamFigures = RamFigures()
    total_time: int = 0
    setup_time: int = 0
    downtime: int = 0
    expected_downtime: int = 0
    cpu_throttle_percentage: int = 0
    error_desc: str = ""
    blocked_reasons: tuple[str, ...] = ()
    socket_address: tuple[SocketAddress, ...] = ()
    """At a destination: where it listens."""


class Number(msgspec.Struct, frozen=True):
    """The parts of a version."""

    major: int
    minor: int
    micro: int


class Version(msgspec.Struct, frozen=True):
    """query-version."""

    qemu: Number
    package: str = ""

    @property
    def text(self) -> str:
        """The version as people write it."""
        return f"{self.qemu.major}.{self.qemu.minor}.{self.qemu.micro}"


class Uuid(msgspec.Struct, frozen=True, rename={"uuid": "UUID"}):
    """query-uuid; all zero where none was given."""

    uuid: str


class MemorySize(msgspec.Struct, frozen=True, rename="kebab"):
    """query-memory-size-summary, in bytes."""

    base_memory: int
    plugged_memory: int = 0


class Property(msgspec.Struct, frozen=True):
    """One of qom-list."""

    name: str
    type: str


class Image(msgspec.Struct, frozen=True):
    """The image of an inserted medium."""

    filename: str


class Inserted(msgspec.Struct, frozen=True, rename="kebab"):
    """What is in a block device."""

    file: str
    ro: bool
    image: Image
    node_name: str = ""


class BlockDevice(msgspec.Struct, frozen=True):
    """One of query-block."""

    device: str = ""
    qdev: str = ""
    inserted: Inserted | None = None


class Capability(msgspec.Struct, frozen=True):
    """One capability of query-migrate-capabilities."""

    capability: str
    state: bool
