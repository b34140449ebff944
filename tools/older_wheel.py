"""Build the wheel of the version before this one from git, for the tests that run both versions side by side.

usage: python tools/older_wheel.py [--check]

Writes tests/versions/viaduct-VERSION-py3-none-any.whl and its sha256. With --check it says instead whether the
committed wheel holds, file by file, what COMMIT makes. Either needs a clone whose history reaches COMMIT; the tests
need only the wheel, because a clone may be shallow.
"""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

COMMIT: Final = "4062d3202f3f7a86a5e2c6a2fd7e357ff044300a"
"""The last commit of 0.1.0."""
ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "tests" / "versions"


def build(into: Path) -> Path:
    """Build the wheel of COMMIT and return its path.

    Raises:
        subprocess.CalledProcessError: The commit is not in this clone, or it does not build.
    """
    tree, time = _git("archive", COMMIT), _git("log", "-1", "--format=%ct", COMMIT)
    sources = into / "sources"
    with tarfile.open(fileobj=io.BytesIO(tree)) as archive:
        archive.extractall(sources, filter="data")
    pip = (
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "-q",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
    )
    environment = {**os.environ, "SOURCE_DATE_EPOCH": time.decode().strip()}
    subprocess.run((*pip, "--wheel-dir", into, sources), check=True, env=environment)
    (wheel,) = into.glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, bytes]:
    """Return what lies in a wheel, but for the name of the builder and the list of checksums, which names it too."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith(("/WHEEL", "/RECORD"))}


def checksum(wheel: Path) -> str:
    """Return a wheel's line as sha256sum writes it."""
    return f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.name}\n"


def main() -> int:
    """Write the wheel, or compare it."""
    with tempfile.TemporaryDirectory() as folder:
        built = build(Path(folder))
        kept = FOLDER / built.name
        if "--check" in sys.argv[1:]:
            same = kept.is_file() and contents(built) == contents(kept)
            print(f"{kept.relative_to(ROOT)} {'holds' if same else 'does not hold'} what {COMMIT[:7]} makes")
            return 0 if same else 1
        kept.write_bytes(built.read_bytes())
    kept.with_name(f"{kept.name}.sha256").write_text(checksum(kept))
    return 0


def _git(*arguments: str) -> bytes:
    return subprocess.run(("git", *arguments), cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    sys.exit(main())
