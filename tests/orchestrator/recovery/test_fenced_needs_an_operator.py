"""`viaduct recover --fenced` is an operator's word: a certificate of another role gives none."""

from pathlib import Path

import pytest

from orchestrator.command import run_here
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue


@pytest.mark.parametrize("role", list(Role))
async def test_only_an_operator_vouches_that_a_host_is_off(
    role: Role, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_authority(tmp_path, "home")
    files = issue(tmp_path, Identity("home", role, "somebody"))
    config = tmp_path / "viaduct.toml"
    config.write_text(
        '[host.host-a]\nsource = "127.0.0.1:1"\ndest = "127.0.0.1:2"\n'
        '[host.host-b]\nsource = "127.0.0.1:3"\ndest = "127.0.0.1:4"\n'
        f'[tls]\nca = "{files.ca}"\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n'
    )
    exit_code = await run_here(["recover", "--fenced", "host-a", "--yes", "--config", str(config)])
    said = capsys.readouterr().err
    assert exit_code == 3
    assert ("cannot vouch that a host is off" in said) is (role is not Role.OPERATOR)
