"""The units that are shipped: systemd understands them, nothing in them is open that need not be, programs are ours."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vm_migration.errors import InvalidInput

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
NAMES = ("viaduct-source-agent", "viaduct-dest-agent", "viaduct-orchestrator")
MACHINE = "viaduct-machine@"
EXPOSURE = 20
"""systemd-analyze's own sum, in tenths; 100 is a service that may do everything."""


def settings(name: str, kind: str = ".service") -> dict[str, list[str]]:
    """Return a unit's settings, every value of each."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / f"{name}{kind}").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def installed(name: str, folder: Path) -> Path:
    """Write a unit as it reads where its program lies in this environment."""
    here = Path(sys.executable).parent
    unit = folder / f"{name}.service"
    unit.write_text((UNITS / unit.name).read_text().replace("/usr/local/bin/", f"{here}/"))
    return unit


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    command = ("systemd-analyze", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


@pytest.mark.parametrize("name", [*NAMES, MACHINE])
def test_systemd_finds_no_fault_in_a_unit(name: str, tmp_path: Path) -> None:
    for other in ("viaduct-machine.socket", "viaduct-machines.slice"):
        shutil.copy(UNITS / other, tmp_path)
    installed(MACHINE, tmp_path)
    verified = analyze("verify", "--man=no", "--generators=no", installed(name, tmp_path))
    complaints = [line for line in verified.stderr.splitlines() if name in line]
    assert (verified.returncode, complaints) == (0, [])


@pytest.mark.parametrize("name", [*NAMES, MACHINE])
def test_a_unit_is_open_to_no_more_than_it_needs(name: str, tmp_path: Path) -> None:
    judged = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", installed(name, tmp_path))
    assert judged.returncode == 0, judged.stdout


@pytest.mark.parametrize("name", [*NAMES, MACHINE])
def test_a_unit_runs_as_its_own_user_without_capabilities_and_with_bounds(name: str) -> None:
    unit = settings(name)
    for key, value in {
        "User": "viaduct",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "ProtectSystem": "strict",
        "PrivateTmp": "yes",
        "UMask": "0077",
    }.items():
        assert unit[key] == [value], key
    assert {"LimitNOFILE", "TasksMax", "LimitCORE"} <= unit.keys()
    assert re.search(r"^u viaduct ", (UNITS / "viaduct.sysusers").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_a_daemon_is_watched_bounded_and_keeps_its_folders_to_itself(name: str) -> None:
    unit = settings(name)
    assert (unit["Type"], unit["NotifyAccess"], unit["Restart"]) == (["notify"], ["main"], ["on-failure"])
    assert unit["RestartPreventExitStatus"] == [str(InvalidInput.exit_code)]
    assert {"WatchdogSec", "MemoryMax", "TimeoutStartSec", "TimeoutStopSec"} <= unit.keys()
    assert unit["StateDirectoryMode"] == ["0700"]


@pytest.mark.parametrize("name", NAMES[:2])
def test_an_agent_has_its_machines_started_in_units_of_their_own_by_the_socket_of_its_user(name: str) -> None:
    unit, socket = settings(name), settings("viaduct-machine", ".socket")
    (path,) = socket["ListenSequentialPacket"]
    assert unit["Environment"] == [f"VIADUCT_AGENT_UNITS={path}"]
    assert all("viaduct-machine.socket" in unit[key][0].split() for key in ("Wants", "After"))
    assert (socket["SocketUser"], socket["SocketMode"], socket["Accept"]) == (unit["User"], ["0600"], ["yes"])
    assert unit["RuntimeDirectoryMode"] == ["0700"]
    assert unit["RuntimeDirectoryPreserve"] == ["yes"]


def test_a_machine_may_ask_the_kernel_what_was_written_and_speaks_to_no_network() -> None:
    unit = settings(MACHINE)
    assert "userfaultfd" in unit["SystemCallFilter"][0].split()
    assert (unit["PrivateNetwork"], unit["RestrictAddressFamilies"]) == (["yes"], ["AF_UNIX"])
    assert "Restart" not in unit


@pytest.mark.parametrize("name", [*NAMES, MACHINE])
def test_a_unit_starts_a_program_that_is_installed(name: str) -> None:
    project = tomllib.loads((UNITS.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (line,) = settings(name)["ExecStart"]
    assert Path(line.split()[0]).name in project["scripts"]
