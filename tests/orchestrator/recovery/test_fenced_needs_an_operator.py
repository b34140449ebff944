"""`viaduct recover --fenced` is an operator's word: a certificate of another role gives none."""

import json
from pathlib import Path

import pytest

from orchestrator.command import run_here
from tests.orchestrator.recovery.documents import each
from tests.orchestrator.recovery.journalled_hosts import JournalledSite, outgoing, owner, prepared, ready
from tests.orchestrator.test_viaduct_command import Run
from vm_migration.link.identity import Identity, Role
from vm_migration.link.pki import create_authority, issue

READY = ready(prepared(outgoing(owner())))


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


async def test_the_word_is_in_the_audit_log_before_anything_is_done_and_what_came_of_it_after(
    viaduct: Run, site: JournalledSite, config: Path
) -> None:
    site["host-b"].hold(READY)
    await site.stop("host-a")
    said = await viaduct("recover", "--fenced", "host-a", "--may-miss-writes", "--yes", "--json")
    text = (config.parent / "audit.jsonl").read_text()
    told = [json.loads(line) for line in text.splitlines()]
    steps = each(said.document, "steps", "action")
    assert [(one["call"], one["outcome"]) for one in told[: len(steps)]] == [("recover --fenced", "begun")] * len(steps)
    assert [one["machine"] for one in told[len(steps) :]] == each(said.document, "steps", "machine")
    assert {one["outcome"] for one in told[len(steps) :]} <= {"done", "failed"}
    assert all("host-a" in one["detail"] and one["epoch"] == READY.epoch for one in told)


async def test_a_word_that_cannot_be_written_down_is_not_acted_upon(
    viaduct: Run, site: JournalledSite, config: Path
) -> None:
    held = site["host-b"].hold(READY)
    await site.stop("host-a")
    (config.parent / "audit.jsonl").mkdir()
    words = ("recover", "--fenced", "host-a", "--may-miss-writes", "--yes")
    said = await viaduct(*words)
    assert said.exit_code == 2
    assert "audit log" in said.err
    assert held.record == READY
