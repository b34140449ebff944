"""What this Debian's own package sources give: a base image's file system, and a program of a later release.

No mirror is written down here: the machine's sources say where packages come from. Nothing is installed.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SUITE: Final = "bookworm"
"""What the base image is made of."""
LATER: Final = "trixie"
"""The first release that has Compose 2."""
SOURCES: Final = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
IN_BASE: Final = (
    *("ca-certificates", "etcd-client", "etcd-server", "iproute2", "mosquitto", "mosquitto-clients", "python3"),
    *("python3-venv", "s6", "tini"),
)
"""What deploy/Dockerfile would install one by one."""
_COMPOSE: Final = Path("usr/libexec/docker/cli-plugins/docker-compose")
_SECONDS: Final = 300


def mirror(sources: str) -> str:
    """Return where the first source of apt's lists is, of either format.

    Raises:
        ValueError: There is none.
    """
    for line in sources.splitlines():
        words = line.split()
        if words[:1] == ["URIs:"]:
            return words[1]
        if words[:1] == ["deb"]:
            return next(word for word in words[1:] if "://" in word)
    raise ValueError("No package source is configured")


def own_mirror() -> str:
    """Return where this machine's packages come from."""
    return mirror("\n".join(path.read_text() for path in SOURCES if path.is_file()))


def making_base(beside: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the command that writes a Debian with all that the images need, as a tarball, to its standard output.

    `beside` are further packages.
    """
    source = f"deb {own_mirror()} {SUITE} main"
    quick = (
        "--dpkgopt=force-unsafe-io",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
    )
    return (
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        *quick,
        f"--include={','.join((*IN_BASE, *beside))}",
        SUITE,
        "-",
        source,
    )


def fetch_compose(folder: Path) -> Path:
    """Take Compose 2 out of a later release's package, and return the program.

    Raises:
        RuntimeError: It could not be fetched.
    """
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "sources").write_text(f"deb [signed-by={KEYRING}] {own_mirror()} {LATER} main\n")
    apt = (
        *("apt-get", "-qq", "-o", f"Dir::Etc::SourceList={folder}/sources", "-o", "Dir::Etc::SourceParts=-"),
        *("-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"),
        *("-o", "APT::Sandbox::User="),  # the folder is its owner's alone
    )
    _run(*apt, "update")
    _run(*apt, "download", "docker-compose", at=folder)
    (package,) = folder.glob("docker-compose_*.deb")
    _run("dpkg", "-x", str(package), str(folder))
    return folder / _COMPOSE


def has(program: str) -> bool:
    """Return whether a program is on this machine."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])) is not None


def _run(*command: str, at: Path | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False, cwd=at)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stderr[-2000:]}")
