"""Two hosts of a test between which a real QEMU sends itself, under TLS of its own."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.vm_migration.machine.qemu.hosts import Pair, host, pair, specification, until
from vm_migration.link.subject_names import subject_names
from vm_migration.link.tls import TlsFiles
from vmm.process.own_stream import GATE, Credentials, DirectAt, DirectTo, StreamTerms

HERE: Final = "127.0.0.1"
HOSTS: Final = ("host-a", "host-b", "host-c")
"""The machine leaves the first one, and is to arrive at the second."""


def credentials(files: TlsFiles, trusted: Path) -> Credentials:
    return Credentials(
        trusted=trusted.read_bytes(), certificate=files.certificate.read_bytes(), key=files.key.read_bytes()
    )


@dataclass
class Directly:
    """A pair, and what its ends show each other."""

    two: Pair
    identities: Mapping[str, TlsFiles]

    async def listen(self, terms: StreamTerms) -> int:
        """Have the destination let host-a in, and return at which port."""
        admits = subject_names(self.identities["host-a"].certificate.read_bytes())
        shown = credentials(self.identities["host-b"], self.identities["host-b"].ca)
        at = DirectAt(host=HERE, admits=admits, credentials=shown)
        return await self.two.arriving.accept_direct_stream(at, terms)

    async def connect(self, port: int, terms: StreamTerms, who: str = "host-a", there: str = "host-b") -> None:
        """Have the source send itself as somebody, to somebody who shows the certificate of `there`."""
        shown = credentials(self.identities[who], self.identities[there].certificate)
        to = DirectTo(host=HERE, port=port, name="host-b", credentials=shown)
        await self.two.leaving.start_direct_stream(to, terms)

    async def to_gate(self, terms: StreamTerms) -> None:
        """Have it send itself, up to its gate."""
        await self.connect(await self.listen(terms), terms)
        gate = await until(self.two.leaving, GATE, "failed")
        assert gate.status == GATE, gate.error


@asynccontextmanager
async def directly(identities: Mapping[str, TlsFiles], program: str = "") -> AsyncIterator[Directly]:
    """Yield a machine whose firmware finds nothing to boot, and where it is to arrive."""
    programs = (program,) if program else ()
    wanted = specification(size="64MiB", table={"binary": program} if program else {})
    async with host("a", *programs) as (here, _), host("b", *programs) as (there, _), pair(here, there, wanted) as two:
        yield Directly(two, identities)
