"""Brings the site of deploy/compose.yaml up on this machine's container engine, and takes it down.

usage: python -m tools.deploy up | down [ARGUMENT ...]

::

    an engine answers                           ->  that one
    else, to root who has Debian's `docker.io`  ->  that is started
    else                                        ->  two lines that say what is missing

What the images are made of, tools/deploy/ingredients.py finds on this machine. Arguments are handed on to Compose.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tools.deploy import compose, ingredients
from tools.deploy.client import Engine
from tools.deploy.debian import has
from tools.set_up import fail

_FILE: Final = "deploy/compose.yaml"
_UP: Final = ("up", "--build", "--detach", "--wait", "--remove-orphans")
_SYSTEMD: Final = Path("/run/systemd/system")
"""Is there where systemd runs the machine (sd_booted(3))."""
_LOG: Final = Path("/var/log/docker.log")
_PID: Final = Path("/run/docker.pid")
_START_SECONDS: Final = 60.0


def main(arguments: Sequence[str]) -> int:
    """Do what the command line asks for; return Compose's exit status."""
    if not arguments or arguments[0] not in ("up", "down"):
        fail(f"Unknown: {' '.join(arguments)}", "Usage: python -m tools.deploy up | down [ARGUMENT ...]")
    engine = Engine()
    if not engine.answers:
        _start(engine)
    try:
        return _up(engine, arguments[1:]) if arguments[0] == "up" else _down(engine, arguments[1:])
    except RuntimeError as error:
        fail(str(error), "Mend what is said above, then give the same command again")


def _start(engine: Engine) -> None:
    """Start Debian's engine: its service, and without a service manager the daemon itself, which stays."""
    if not has("dockerd"):
        why = "No container engine answers (docker info), and Debian's is not installed"
        fail(why, "As root: apt-get install docker.io")
    if os.geteuid() != 0:
        fail("No container engine answers (docker info)", "As root: systemctl start docker")
    if _SYSTEMD.exists():
        subprocess.run(("systemctl", "start", "docker"), check=False, stdout=sys.stderr, stdin=subprocess.DEVNULL)
    else:
        _start_daemon()
    until = time.monotonic() + _START_SECONDS
    while not engine.answers:
        if time.monotonic() > until:
            fail("The container engine does not answer", f"See {_LOG}, or journalctl -u docker")
        time.sleep(0.5)  # it tells nobody when it is ready


def _start_daemon() -> None:
    print(f"Starting dockerd, as no service manager runs here; to end it: kill $(cat {_PID})", file=sys.stderr)
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    with _LOG.open("ab") as log:
        subprocess.Popen(
            ("dockerd", "--pidfile", str(_PID)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def _up(engine: Engine, more: Sequence[str]) -> int:
    program = _compose(engine)
    with tempfile.TemporaryDirectory(prefix="viaduct-deploy-") as folder:
        environment = ingredients.all_of(engine, Path(folder), registry=True)
        status = _run(program, (*_UP, *more), environment)
    if status == 0:
        print(f"Look at it: {' '.join(program)} -f {_FILE} exec operator viaduct host list")
    return status


def _down(engine: Engine, more: Sequence[str]) -> int:
    return _run(_compose(engine), ("down", *more), engine.environment)


def _compose(engine: Engine) -> Sequence[str]:
    program = compose.found(engine)
    if program is not None:
        return program
    with tempfile.TemporaryDirectory(prefix="viaduct-deploy-") as folder:
        place = compose.as_plugin(compose.fetched(Path(folder)))
    print(f"Compose 2 of a later Debian is in {place} now", file=sys.stderr)
    return ("docker", "compose")


def _run(program: Sequence[str], arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    command = (*program, "-f", _FILE, *arguments)
    return subprocess.run(command, check=False, cwd=ingredients.ROOT, env=dict(environment)).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
