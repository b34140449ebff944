"""A real container engine: the one that runs on this machine, or one of our own, which leaves nothing behind.

::

    `docker info` answers    ->  that one, as it is
    root, dockerd installed  ->  dockerd with a folder and a socket of its own -> its end: unmounted, folder gone,
                                 links gone, packet filter and sysctls as they were
    otherwise                ->  an error that says what is missing
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

from tools.deploy.client import Engine
from tools.deploy.debian import has

_SYSCTLS: Final = (
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables"),
    Path("/proc/sys/net/bridge/bridge-nf-call-ip6tables"),
    Path("/proc/sys/net/ipv4/ip_forward"),
)
_TABLES: Final = ("filter", "nat")
_KEY: Final = Path("/etc/docker/key.json")
_LINK: Final = Path("/sys/class/net/docker0")
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0


@contextlib.contextmanager
def some_engine() -> Iterator[Engine]:
    """Have an engine for as long as the context lasts."""
    if has("docker") and (engine := Engine()).answers:
        yield engine
        return
    missing = [program for program in ("docker", "dockerd") if not has(program)]
    assert not missing, "No container engine runs, and none is installed: apt-get install docker.io"
    assert os.geteuid() == 0, "No container engine runs, and only root can start one"
    # On a disk: images are some hundred MB, and overlayfs does not lie on every file system.
    with (
        tempfile.TemporaryDirectory(prefix="viaduct-engine-", dir="/var/lib") as folder,
        _surroundings_kept(),
        _own_engine(Path(folder)) as engine,
    ):
        yield engine


@contextlib.contextmanager
def _own_engine(folder: Path) -> Iterator[Engine]:
    socket = f"unix://{folder}/docker.sock"
    places = (
        "--data-root",
        f"{folder}/data",
        "--exec-root",
        f"{folder}/exec",
        "--pidfile",
        f"{folder}/pid",
        "-H",
        socket,
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
    environment |= {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            ("setpriv", "--pdeathsig", "TERM", "dockerd", *places),  # it does not outlive whoever started it
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    # No builder but the old one is in Debian 12.
    client = environment | {"DOCKER_HOST": socket, "DOCKER_CONFIG": f"{folder}/client", "DOCKER_BUILDKIT": "0"}
    engine = Engine(client)
    try:
        until = time.monotonic() + _START_SECONDS
        while not engine.answers:
            text = (folder / "log").read_text(errors="replace")[-2000:]
            assert daemon.poll() is None, f"dockerd ended:\n{text}"
            assert time.monotonic() < until, f"dockerd does not answer:\n{text}"
            time.sleep(0.2)  # the socket is made before it is answered at
        yield engine
    finally:
        _end(engine, daemon)
        _end_what_is_left(folder)
        _unmount(folder)


def _end(engine: Engine, daemon: subprocess.Popen[bytes]) -> None:
    """End every container, the daemon, and what it started."""
    if engine.answers and (containers := engine.docker("ps", "-aq").split()):
        engine.attempt("rm", "--force", "--volumes", *containers)
    daemon.terminate()
    try:
        daemon.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)  # its session is ours: containerd is in it too
        daemon.wait(_STOP_SECONDS)


def _end_what_is_left(folder: Path) -> None:
    """End what an engine that had to be killed has left: the keepers of its containers, and these with them."""
    keepers = [
        each
        for each in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in each.info["cmdline"] or ())
    ]
    for process in [child for keeper in keepers for child in keeper.children(recursive=True)] + keepers:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _unmount(folder: Path) -> None:
    """Unmount what an engine that was killed left in its folder, the innermost first."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed([each for each in mounts if each.startswith(f"{folder}/")]):
        subprocess.run(("umount", "--lazy", mount), check=False, capture_output=True, timeout=30)


@contextlib.contextmanager
def _surroundings_kept() -> Iterator[None]:
    """Put back what an engine changes around it: it drops what other bridges forward, and after its end still."""
    sysctls = {path: path.read_text() for path in _SYSCTLS if path.exists()}
    rules = {table: _packet_filter("iptables-save", "-t", table) for table in _TABLES}
    links = {link.name for link in _LINK.parent.iterdir()}
    had_key = _KEY.exists()
    try:
        yield
    finally:
        for table, before in rules.items():
            # A table that was not there has no rules of anybody else's to keep.
            if before.strip():
                _packet_filter("iptables-restore", "-T", table, stdin=before)
            else:
                _empty(table)
        for path, before in sysctls.items():
            path.write_text(before)
        for link in {link.name for link in _LINK.parent.iterdir()} - links:
            if link == _LINK.name or link.startswith("br-"):
                subprocess.run(("ip", "link", "delete", link), check=False, capture_output=True, timeout=30)
        if not had_key and _KEY.exists():
            _KEY.unlink()
            with contextlib.suppress(OSError):  # somebody keeps more there
                _KEY.parent.rmdir()


def _empty(table: str) -> None:
    for flag in ("-F", "-X"):
        _packet_filter("iptables", "-t", table, flag)
    if table == "filter":
        _packet_filter("iptables", "-P", "FORWARD", "ACCEPT")


def _packet_filter(*command: str, stdin: str = "") -> str:
    program = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None:  # then the engine cannot change it either
        return ""
    done = subprocess.run((program, *command[1:]), input=stdin, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout
