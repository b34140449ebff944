"""Machines of real QEMUs whose guest counts, for tests of whole migrations."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from tests.qemu_guest.build import Guest, build
from tests.qemu_guest.serial import counts, without_gap
from tests.system.attempts import DEADLINE, MIB, policy
from vmm.assembly.specification import MachineSpecification, check_specification

MEMORY = 128 * MIB
SLOW = policy(limit_ms=1000, bandwidth=4 * MIB)
"""A policy under which the first pass takes seconds."""
PROGRAM = shutil.which("qemu-system-x86_64") or "qemu-system-x86_64"


def guest_that_counts(config: pytest.Config, folders: pytest.TempPathFactory) -> Guest:
    """Return a guest that writes to its memory and counts."""
    cache = config.cache
    assert cache is not None
    return build(cache.mkdir("qemu-guest"), folders.mktemp("guest"), rate=4 * MIB, working_set=16 * MIB)


def offer(*programs: str) -> str:
    """Return the section without which no host runs any."""
    return f"[offer]\nqemu = {json.dumps(programs)}\n"


def specification(guest: Guest, serial: Path, *arguments: str, binary: str = PROGRAM) -> MachineSpecification:
    """Return a machine whose guest prints into a file that both hosts have."""
    qemu = {"binary": binary, "arguments": ["-accel", "tcg", *guest.arguments(serial), *arguments]}
    return check_specification({"name": "real", "kind": "qemu", "memory": {"size": "128MiB"}, "qemu": qemu}, "real")


async def counted(serial: Path, above: int = 0) -> int:
    """Wait until the guest has counted further than that, without gap or repeat; return how far."""
    async with asyncio.timeout(DEADLINE):
        while not (found := counts(serial)) or found[-1] <= above + 3:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)
    assert without_gap(found)
    return found[-1]
