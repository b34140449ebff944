import subprocess
import sys
import tomllib
from pathlib import Path

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def test_imports_follow_the_architecture(root: Path) -> None:
    run = subprocess.run([LINT_IMPORTS, "--no-cache"], cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_contracts_cover_every_package(root: Path, packages: list[str]) -> None:
    metadata = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    assert metadata["tool"]["importlinter"]["root_packages"] == packages


def test_an_import_against_the_arrows_is_found(root: Path, tmp_path: Path) -> None:
    for package, text in {
        "vfio_host": "",
        "vmm": "import vm_migration\n",
        "vm_migration": "",
        "source_agent": "import dest_agent\n",
        "dest_agent": "",
        "orchestrator": "",
    }.items():
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(text)
    settings = (root / "pyproject.toml").read_text(encoding="utf-8")
    first = settings.index("[[tool.importlinter.contracts]]")
    only_first = settings[: settings.index("[[tool.importlinter.contracts]]", first + 1)]
    (tmp_path / "pyproject.toml").write_text(only_first, encoding="utf-8")
    command = [sys.executable, "-I", "-c", _LINT_HERE, str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "source_agent is not allowed to import dest_agent" in run.stdout
    assert "vmm is not allowed to import vm_migration" in run.stdout


_LINT_HERE = """
import sys
sys.path.insert(0, sys.argv[1])
from importlinter.cli import lint_imports
sys.exit(lint_imports(no_cache=True))
"""
