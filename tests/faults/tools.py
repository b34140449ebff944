"""What a person would ask after a fault: `viaduct doctor`, and `viaduct recover` without options.

`who` names the configuration that the person has.
"""

import asyncio
import json
import subprocess

from tests.faults.fault_site import CONTROL, FaultSite
from tests.faults.observation import Diagnosis
from tests.system.daemons import environment, program

_SECONDS = 60.0
_SILENT = ("host-silent", "orchestrator-silent")


async def doctor(site: FaultSite, machine: str, *, who: str) -> Diagnosis | None:
    """Ask what is wrong with the site, and what it says of one machine; None when it did not answer.

    Where all it finds is that somebody was silent it is asked once more, as a person would: on a machine with much
    other work, five seconds may be too few for a host that has nothing wrong, or an orchestrator that was just started.
    """
    found = await _diagnosis(site, machine, who=who)
    if found is not None and found.problems and all(each.startswith(_SILENT) for each in found.problems):
        found = await _diagnosis(site, machine, who=who)
    return found


async def _diagnosis(site: FaultSite, machine: str, *, who: str) -> Diagnosis | None:
    done = await asyncio.to_thread(_viaduct, site, who, "doctor")
    try:
        document = json.loads(done.stdout)
    except ValueError:
        return None
    if document.get("schema") != "viaduct.doctor.v1":
        return None
    mine = next((each for each in document["machines"] if each["machine"] == machine), None)
    problems = [f"{each['code']} at {each['host']}" for each in document["findings"] if each["severity"] == "problem"]
    return Diagnosis(
        exit_code=done.returncode,
        state="" if mine is None else mine["state"],
        owner="" if mine is None else mine["owner"] or "",
        problems=tuple(problems),
    )


async def recover(site: FaultSite, *, who: str) -> str:
    """Have everything recovered that the journals decide; return what it said."""
    return _said(await asyncio.to_thread(_viaduct, site, who, "recover"))


async def recover_fenced(site: FaultSite, host: str, name: str, *, who: str) -> str:
    """Decide as an operator does on a machine that may have run on a host where its process is gone."""
    words = ("recover", "--fenced", host, "--machine", name, "--may-miss-writes", "--yes")
    return _said(await asyncio.to_thread(_viaduct, site, who, *words))


def _said(done: "subprocess.CompletedProcess[bytes]") -> str:
    said = (done.stdout + done.stderr).decode(errors="replace").strip()
    return f"exit {done.returncode}, {' '.join(said.split())[-600:]}"


def _viaduct(site: FaultSite, who: str, *words: str) -> "subprocess.CompletedProcess[bytes]":
    configuration = site.configuration(who)
    return subprocess.run(
        [*site.inside(CONTROL), program("viaduct"), *words, "--json", "--config", str(configuration)],
        stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_SECONDS, env=environment(),
    )  # fmt: skip
