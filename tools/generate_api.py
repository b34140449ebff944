"""Generate vm_migration/api from proto/; with --check, say whether the committed stubs are what it would write."""

import filecmp
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (Path("vm_migration/api/v1"), Path("vm_migration/api/etcd"))


def generate(into: Path) -> None:
    """Write the stubs of every .proto file below proto/ into a folder.

    Raises:
        subprocess.CalledProcessError: The compiler refused a file; its own words are on stderr.
    """
    sources = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    outputs = [f"--{kind}_out={into}" for kind in ("python", "grpc_python")]
    outputs += [f"--{kind}_out=quiet:{into}" for kind in ("mypy", "mypy_grpc")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "proto"), *outputs, *sources],
        check=True,
        env={**os.environ, "PATH": path},
    )


def differences() -> list[str]:
    """Name every generated file that is missing, stale or left over."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        return [str(package / name) for package in PACKAGES for name in _different(Path(folder) / package, package)]


def _different(fresh: Path, package: Path) -> list[str]:
    committed = ROOT / package
    names = {p.name for p in fresh.iterdir()} | {p.name for p in committed.glob("*_pb2*")}
    _, mismatch, errors = filecmp.cmpfiles(fresh, committed, sorted(names), shallow=False)
    return mismatch + errors


def main() -> int:
    """Write the stubs, or check them."""
    if "--check" in sys.argv[1:]:
        stale = differences()
        for name in stale:
            print(f"{name} is not what proto/ generates: run 'make proto'", file=sys.stderr)
        return 1 if stale else 0
    generate(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
