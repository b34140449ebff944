"""Make .venv from the locked versions, and see to the system packages that a task needs.

usage: python3 tools/set_up.py run | dev | tools [PURPOSE]

`run` installs what the programs need (requirements.lock), `dev` also what their tests need (requirements-dev.lock), and
`tools` also what searches for faults and looks at what is shipped (requirements-tools.lock).
PURPOSE names lines of tools/system-packages.txt. Only the standard library is used: this runs before anything is
installed. A checkout whose .venv is up to date is left alone. Everything said goes to stderr.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NoReturn

ROOT: Final = Path(__file__).resolve().parent.parent
ENVIRONMENT: Final = ROOT / ".venv"
LOCKS: Final = {
    "run": ROOT / "requirements.lock",
    "dev": ROOT / "requirements-dev.lock",
    "tools": ROOT / "requirements-tools.lock",
}
"""What each level installs; a later level holds all of the earlier ones."""
OLD_CLIENT: Final = ROOT / "tests" / "asyncio-mqtt.lock"
"""The MQTT client under its old name, which tests use from .venv/asyncio-mqtt, beside the environment proper."""
SYSTEM_PACKAGES: Final = ROOT / "tools" / "system-packages.txt"
INTERPRETER: Final = f"{sys.version}\n{sys.base_prefix}\n{ROOT}\n"
"""What .venv is bound to: when any of it changes, .venv is made anew."""


def fail(what: str, remedy: str) -> NoReturn:
    """End with one line that says what is wrong and one that says what to do."""
    print(f"{what}\n{remedy}", file=sys.stderr)
    sys.exit(1)


if sys.version_info < (3, 11):  # noqa: UP036 - reached on older machines: this check is what tells them
    fail(
        f"Viaduct needs Python 3.11 or later, and {sys.executable} is {sys.version.split()[0]}",
        "Name a later one, for example: make PYTHON=python3.12 demo",
    )


def run(*command: str | Path) -> None:
    """Run a command whose output goes to stderr; one that fails ends the set-up, in its own words and ours."""
    try:
        subprocess.run(command, check=True, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as error:
        fail(f"Set-up stopped: {error}", "Mend what is said above, then give the same command again")


def install_system_packages(packages: list[str], purpose: str) -> None:
    """Install packages through apt when that is ours to do; otherwise name them and stop."""
    names = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        fail(f"System packages are missing for {purpose}: {names}", f"As root: apt-get install {names}")
    print(f"Installing system packages for {purpose}: {names}", file=sys.stderr)
    apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120")
    subprocess.run((*apt, "update"), check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr)  # old lists may do
    run(*apt, "install", "--yes", "--no-install-recommends", *packages)


def missing_packages(listing: str, purpose: str) -> list[str]:
    """Return the packages of a purpose whose program is not on this machine.

    Args:
        listing: Lines of purpose, package and program; `#` begins a comment.
        purpose: Which lines count.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    lines = [line.split() for line in listing.splitlines() if line and not line.startswith("#")]
    return [package for of, package, program in lines if of == purpose and shutil.which(program, path=path) is None]


def make_environment() -> None:
    """Make an empty .venv, replacing one that belongs to another interpreter or another folder."""
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        install_system_packages([f"python{version}-venv"], "making .venv")
    run(sys.executable, "-m", "venv", "--clear", ENVIRONMENT)
    (ENVIRONMENT / "interpreter").write_text(INTERPRETER)


def locked(level: str) -> str:
    """Return what identifies a level's contents: its locks and the project's own metadata."""
    files = [LOCKS[level], ROOT / "pyproject.toml", *([OLD_CLIENT] if level != "run" else [])]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def recorded(name: str) -> str:
    """Return what an earlier set-up wrote into .venv, or nothing."""
    path = ENVIRONMENT / name
    return path.read_text() if path.is_file() else ""


def install(level: str) -> None:
    """Bring .venv to a level: packages by hash, from wheels only, then this checkout itself."""
    print(f"Installing {LOCKS[level].name} into .venv (once, about a minute)", file=sys.stderr)
    pip = (ENVIRONMENT / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "-qq", "install")
    run(*pip, "--require-hashes", "--only-binary", ":all:", "-r", LOCKS[level])
    run(*pip, "--no-deps", "--no-build-isolation", "-e", ROOT)
    if level != "run":
        aside = ("--upgrade", "--target", ENVIRONMENT / "asyncio-mqtt")
        run(*pip, "--require-hashes", "--no-deps", "--no-build-isolation", *aside, "-r", OLD_CLIENT)
    (ENVIRONMENT / f"installed-{level}").write_text(locked(level))


def main(arguments: list[str]) -> None:
    """Do what the command line asks for and is not done yet."""
    levels = list(LOCKS)
    if not arguments or arguments[0] not in levels or len(arguments) > 2:
        fail(f"Unknown set-up: {' '.join(arguments)}", f"Usage: set_up.py {' | '.join(levels)} [PURPOSE]")
    level = arguments[0]
    for purpose in arguments[1:]:
        missing = missing_packages(SYSTEM_PACKAGES.read_text(), purpose)
        if missing:
            install_system_packages(missing, purpose)
    if recorded("interpreter") != INTERPRETER:
        make_environment()
    if all(recorded(f"installed-{enough}") != locked(enough) for enough in levels[levels.index(level) :]):
        install(level)


if __name__ == "__main__":
    main(sys.argv[1:])
