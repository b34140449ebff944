"""Compose 2 on this machine: the client's plugin, or a program of its own, or what a later Debian has."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tools.deploy.client import Engine
from tools.deploy.debian import fetch_compose, has


def found(engine: Engine) -> Sequence[str] | None:
    """Return the program, where this machine has it."""
    if engine.attempt("compose", "version").returncode == 0:
        return ("docker", "compose")
    own = shutil.which("docker-compose")
    if own is not None and "v2" in subprocess.run((own, "version"), capture_output=True, text=True, check=False).stdout:
        return (own,)
    return None


def fetched(folder: Path) -> Path:
    """Fetch the program into an empty folder.

    Raises:
        RuntimeError: This machine has no apt-get, or that does not find it.
    """
    if not has("apt-get"):
        raise RuntimeError("Compose 2 is not installed, and there is no apt-get to fetch it with")
    return fetch_compose(folder)


def as_plugin(program: Path) -> Path:
    """Put the program where the client of whoever runs this finds it as `docker compose`, and return where."""
    configuration = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    place = configuration / "cli-plugins" / "docker-compose"
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(program, place)
    return place
