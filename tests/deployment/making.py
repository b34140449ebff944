"""Makes the images of deploy/Dockerfile from this checkout, and the site of deploy/compose.yaml from them."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.deployment.debian import fetch_compose, has, write_base
from tests.deployment.deployment import CONTROL, MIGRATION, PROJECT, ROOT, Deployment
from tests.deployment.engine import Engine

_BASE: Final = "viaduct-base"
_AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_OF_PIP: Final = ("index-url", "extra-index-url", "trusted-host")


@contextlib.contextmanager
def deployed(engine: Engine, folder: Path) -> Iterator[Deployment]:
    """Have the site's images made and the site up; nothing of it is left, but the base image on an engine of others."""
    with ThreadPoolExecutor() as pool:  # both wait for a mirror, mostly
        compose, base = pool.submit(_compose, engine, folder), pool.submit(_base, engine, folder)
    images = {"VIADUCT_IMAGE": PROJECT, "VIADUCT_SERVICES_IMAGE": f"{PROJECT}-services"}
    networks = {"VIADUCT_CONTROL_NET": CONTROL, "VIADUCT_MIGRATION_NET": MIGRATION}
    chosen = images | networks | _source(folder) | {"VIADUCT_BASE": base.result()} | _package_index()
    site = Deployment(engine, compose.result(), {**engine.environment, **chosen})
    site.compose("down", "--volumes")  # what a test that was killed has left on an engine of others
    try:
        site.compose("build")
        site.up()
        yield site
    finally:
        site.compose("down", "--volumes", "--timeout", "5")
        engine.attempt("image", "rm", "--force", *images.values())


def _compose(engine: Engine, folder: Path) -> Sequence[str]:
    """Return Compose 2: the client's plugin, or a program of its own, or what a later Debian has."""
    if engine.attempt("compose", "version").returncode == 0:
        return ("docker", "compose")
    own = shutil.which("docker-compose")
    if own is not None and "v2" in subprocess.run((own, "version"), capture_output=True, text=True, check=False).stdout:
        return (own,)
    assert has("apt-get"), "Compose 2 is not installed, and there is no apt-get to fetch it with"
    return (str(fetch_compose(folder / "compose")),)


def _base(engine: Engine, folder: Path) -> str:
    """Return the base image: one that is named, one that is there, one of this machine's Debian, or Debian's own."""
    named = engine.environment.get("VIADUCT_BASE")
    if named:
        return named
    if engine.attempt("image", "inspect", _BASE).returncode == 0:
        return _BASE
    if not has("mmdebstrap"):
        return "debian:bookworm-slim"
    write_base(folder / "base.tar")
    engine.docker("import", str(folder / "base.tar"), _BASE)
    (folder / "base.tar").unlink()
    return _BASE


def _source(folder: Path) -> dict[str, str]:
    """Copy what an image is made from, with the authorities that this machine believes."""
    context = folder / "context"
    listed = subprocess.run(
        ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, context / name)
    if not _AUTHORITIES.is_file():
        return {"VIADUCT_CONTEXT": str(context)}
    shutil.copy(_AUTHORITIES, context / "deploy/container/authorities.pem")
    return {"VIADUCT_CONTEXT": str(context), "VIADUCT_EXTRA_CA": "deploy/container/authorities.pem"}


def _package_index() -> dict[str, str]:
    """Return where this machine's pip takes packages from, as far as a container can reach it."""
    asked = subprocess.run(
        (sys.executable, "-m", "pip", "config", "list"), capture_output=True, text=True, check=True, timeout=60
    )
    return reachable_index(asked.stdout)


def reachable_index(configuration: str) -> dict[str, str]:
    """Return pip's settings of where packages are, as variables for it; folders of this machine are left out.

    Args:
        configuration: What `pip config list` prints: `global.index-url='https://...'`.
    """
    found = {}
    for line in configuration.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        words = [word for word in value.strip("'").replace("\\n", " ").split() if not word.startswith("file:")]
        if key in _OF_PIP and words:
            found[f"PIP_{key.upper().replace('-', '_')}"] = " ".join(words)
    return found
