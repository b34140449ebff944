"""What may not be imported where every start pays for it: commands, agents, and a machine's processes."""

import subprocess
import sys

import pytest

PRINT_PACKAGES = "print(*{'.'.join(name.split('.')[:depth]) for name in sys.modules for depth in (1, 2)})"


@pytest.mark.parametrize(
    ("module", "without"),
    [
        # Every command and every agent reads specifications, and computes nothing.
        ("vmm.assembly.specification", {"numpy", "msgspec", "xxhash", "asyncio", "vfio_host"}),
        # Commands compute nothing on pages; what they log has no coloured tracebacks.
        ("orchestrator.commands.migrate", {"numpy", "vfio_host", "attr", "pygments", "source_agent", "dest_agent"}),
        # Agents print nothing for people, keep no database, and start machines without being able to be one.
        ("source_agent.process", {"rich", "click", "attr", "pygments", "sqlite3", "vmm.viommu"}),
        ("dest_agent.process", {"rich", "click", "attr", "pygments", "sqlite3", "vmm.viommu"}),
        # Machines talk to their host and their agent by plain sockets.
        ("vmm.process.main", {"asyncio", "grpc", "vm_migration"}),
        ("vfio_host.process.main", {"asyncio", "grpc", "pydantic", "vmm", "vm_migration"}),
    ],
)
def test_what_starts_often_imports_only_what_it_works_with(module: str, without: set[str]) -> None:
    command = [sys.executable, "-c", f"import sys, {module}; {PRINT_PACKAGES}"]
    imported = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert module.partition(".")[0] in imported
    assert not imported & without
