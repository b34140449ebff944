"""What the images of deploy/Dockerfile are made of on this machine, as variables for deploy/compose.yaml.

::

    base          made here before -> Debian's, where a registry has it -> of this machine's package sources
    authorities   those that this machine believes, beside Debian's own
    packages      from where this machine's pip takes them, as far as a container can reach it

What the environment says already stays as it is.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.deploy.client import Engine
from tools.deploy.debian import has, making_base

ROOT: Final = Path(__file__).resolve().parents[2]
MADE: Final = "viaduct-base"
DEBIAN: Final = "debian:bookworm-slim"
_AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_OF_PIP: Final = ("index-url", "extra-index-url", "trusted-host")
_PULL_SECONDS: Final = 120.0


def base(engine: Engine, *, registry: bool, beside: Sequence[str] = ()) -> str:
    """Return the base image, made or fetched where it is not there; a registry is asked where `registry` says so.

    One that is made has the packages `beside` as well, and a tag of its own for them: nobody else gets it.

    Raises:
        RuntimeError: It could not be made.
    """
    if named := engine.environment.get("VIADUCT_BASE"):
        return named
    made = "-".join((f"{MADE}:with", *beside)) if beside else MADE
    for image in (made, DEBIAN):
        if engine.attempt("image", "inspect", image).returncode == 0:
            return image
    if registry and _pulled(engine):
        return DEBIAN
    if not has("mmdebstrap"):
        return DEBIAN
    _make_base(engine, made, beside)
    return made


def all_of(engine: Engine, folder: Path, *, registry: bool, beside: Sequence[str] = ()) -> dict[str, str]:
    """Return the variables; `folder` holds what images are made from for as long as they are made.

    A base that is made has the packages `beside` as well.

    Raises:
        RuntimeError: There is no base, and none could be made.
    """
    builder = {} if engine.attempt("buildx", "version").returncode == 0 else {"DOCKER_BUILDKIT": "0"}
    found = {
        "VIADUCT_BASE": base(engine, registry=registry, beside=beside),
        **_source(folder),
        **_package_index(),
        **builder,
    }
    return {**found, **engine.environment}


def _make_base(engine: Engine, name: str, beside: Sequence[str]) -> None:
    command = ("docker", "import", "-", name)
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(making_base(beside), stdout=subprocess.PIPE, stderr=said) as making,
    ):
        environment = dict(engine.environment)
        taken = subprocess.run(command, stdin=making.stdout, capture_output=True, check=False, env=environment)
        status = making.wait()
        said.seek(0)
        if status != 0 or taken.returncode != 0:
            raise RuntimeError(f"No base image could be made: {said.read()[-2000:]!r} {taken.stderr[-2000:]!r}")


def _pulled(engine: Engine) -> bool:
    try:
        return engine.attempt("pull", "--quiet", DEBIAN, seconds=_PULL_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


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
