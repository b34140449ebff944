"""`viaduct pki`: the site's own certificate authority, and certificates for hosts and people."""

from pathlib import Path

import click
from rich.console import Console

from orchestrator.documents.listings import PkiDocument
from orchestrator.render.listings import show_certificate
from vm_migration.command_line.invocation import Answer, Invocation, answering
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, inspect
from vm_migration.link.pki import issue as issue_certificate
from vm_migration.link.pki import renew as renew_certificate

_FOLDER = click.option(
    "--folder", type=click.Path(path_type=Path), default="/etc/viaduct/pki", show_default=True, help="Where they lie."
)


@click.group("pki")
def pki() -> None:
    """Make, renew and show certificates."""


@pki.command("init")
@_FOLDER
@click.option("--site", default="home", show_default=True, help="The site's name, as in `[site] name`.")
@answering
async def init(call: Invocation, folder: Path, site: str) -> Answer:
    """Make the site's certificate authority. Its key, ca.key, belongs on no host."""
    del call
    return _answer(create_authority(folder, site), folder / "ca.key")


@pki.command("issue")
@click.argument("name")
@_FOLDER
@click.option("--role", type=click.Choice([role.value for role in Role]), default="host", show_default=True)
@click.option("--site", help="The site's name; the authority's own when left out.")
@click.option("--address", "addresses", multiple=True, help="An address or DNS name that NAME is met at; repeatable.")
@answering
async def issue(
    call: Invocation, name: str, folder: Path, *, role: str, site: str | None, addresses: tuple[str, ...]
) -> Answer:
    """Issue a certificate for NAME: a host, an orchestrator or a person."""
    del call
    identity = Identity(site or _site(folder), Role(role), name)
    files = issue_certificate(folder, identity, addresses)
    return _answer(files.certificate, files.key)


@pki.command("renew")
@click.argument("name")
@_FOLDER
@answering
async def renew(call: Invocation, name: str, folder: Path) -> Answer:
    """Issue the certificate of NAME again, with a new key. Daemons take both files up without a restart."""
    del call
    files = renew_certificate(folder, name)
    return _answer(files.certificate, files.key)


@pki.command("show")
@click.argument("certificate", type=click.Path(path_type=Path))
@answering
async def show(call: Invocation, certificate: Path) -> Answer:
    """Show whom CERTIFICATE names and how long it is valid."""
    del call
    return _answer(certificate, None)


def _answer(certificate: Path, key: Path | None) -> Answer:
    facts = inspect(certificate)
    document = PkiDocument(
        schema_name="viaduct.pki.v1",
        certificate=str(certificate),
        key=str(key) if key else None,
        identity=facts.identity.uri if facts.identity else None,
        authority=facts.authority,
        names=tuple(facts.names),
        not_before=facts.not_before.isoformat(),
        not_after=facts.not_after.isoformat(),
        sha256=facts.sha256,
    )

    def show_it(console: Console) -> None:
        show_certificate(console, document)

    return Answer(document, show_it)


def _site(folder: Path) -> str:
    parts = dict(part.split("=", 1) for part in inspect(folder / "ca.pem").subject.split(",") if "=" in part)
    return parts.get("O", "")
