"""A command that runs for long shows the orchestrator its renewed certificate."""

from functools import partial
from pathlib import Path

import pytest

from orchestrator.client import PEER
from orchestrator.doors import Doors
from orchestrator.site import open_doors
from vm_migration.api.v1 import orchestrator_pb2 as api
from vm_migration.api.v1.orchestrator_pb2_grpc import OrchestratorServicer, add_OrchestratorServicer_to_server
from vm_migration.daemon.configuration import Configuration, load
from vm_migration.errors import InvalidInput
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue, renew
from vm_migration.link.served import Context
from vm_migration.link.server import AgentServer, Service

NAME = "vm_migration.api.v1.Orchestrator"


class Recording(OrchestratorServicer):
    """Remembers which certificate its callers show."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    async def ListAttempts(  # noqa: N802 - gRPC's name
        self, request: api.ListAttemptsRequest, context: Context
    ) -> api.ListAttemptsResponse:
        del request
        (shown,) = context.auth_context()["x509_pem_cert"]
        self.shown.append(shown.decode())
        return api.ListAttemptsResponse()


async def ask(doors: Doors) -> None:
    await doors.ask(lambda stub: stub.ListAttempts, api.ListAttemptsRequest(), deadline=10)


def configuration(pki: Path, address: str) -> Configuration:
    """Return an operator's."""
    files = issue(pki, Identity("home", Role.OPERATOR, "anna"))
    path = pki / "viaduct.toml"
    path.write_text(
        f'[site]\nname = "home"\norchestrator = "{address}"\n'
        f'[tls]\nca = "{files.ca}"\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n'
    )
    return load(path, {})


async def test_the_next_call_shows_the_renewed_certificate(tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    create_authority(pki, "home")
    recording = Recording()  # type: ignore[abstract]  # the other calls are answered UNIMPLEMENTED
    served = Service(NAME, partial(add_OrchestratorServicer_to_server, recording))
    files = issue(pki, Identity("home", Role.ORCHESTRATOR, PEER))
    async with AgentServer("127.0.0.1:0", files, [served]) as server:
        async with open_doors(configuration(pki, server.address)) as doors:
            for _ in range(3):
                await ask(doors)
                assert recording.shown[-1] == (pki / "anna.pem").read_text()
                renew(pki, "anna")
        assert len(set(recording.shown)) == 3


async def test_who_has_no_usable_certificate_hears_of_it_before_anything_is_asked(tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    create_authority(pki, "home")
    known = configuration(pki, "127.0.0.1:7000")
    (pki / "anna.key").unlink()
    with pytest.raises(InvalidInput):
        async with open_doors(known):
            pass
