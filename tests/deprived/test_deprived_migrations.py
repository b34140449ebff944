"""A machine moves, and every page is verified, where privilege or userfaultfd is taken away, as containers do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

VIADUCT = Path(sys.executable).parent / "viaduct"
DEADLINE = 100.0
MEMORY_MIB = 128
SMALL = (
    *("--memory", f"{MEMORY_MIB}MiB", "--cpu-dirty-rate", "20MiB/s", "--dma-rate", "10MiB/s"),
    *("--downtime-limit", "5s"),
)


def deprived(of: str, *command: str) -> subprocess.CompletedProcess[str]:
    runner = (sys.executable, "-m", f"tests.deprived.without_{of}")
    return subprocess.run((*runner, *command), capture_output=True, text=True, timeout=DEADLINE, check=False)


def migrated(of: str) -> dict[str, object]:
    """Run the demo, both hosts and all their processes, without something; return its result."""
    run = deprived(of, str(VIADUCT), "demo", "--json", *SMALL)
    assert run.returncode == 0, run.stderr
    result: dict[str, object] = json.loads(run.stdout)
    return result


def test_without_userfaultfd_every_page_is_hashed_at_the_pause_and_the_result_says_so() -> None:
    result = migrated("userfaultfd")
    assert (result["outcome"], result["verified_by"], result["pages_mismatched"]) == ("completed", "full", 0)
    assert result["pages_verified"] == (MEMORY_MIB << 20) // 4096


def test_without_any_capability_a_machine_moves_all_the_same() -> None:
    result = migrated("capabilities")
    assert (result["outcome"], result["pages_mismatched"]) == ("completed", 0)


@pytest.mark.parametrize(
    ("of", "question", "answer"),
    [
        ("userfaultfd", "import ctypes; c = ctypes.CDLL(None); n = {NUMBER}; print(c.syscall(n, 1))", "-1"),
        ("capabilities", "print([l.split()[1] for l in open('/proc/self/status') if 'CapEff' in l][0])", "0" * 16),
        ("capabilities", "print([l.split()[1] for l in open('/proc/self/status') if 'NoNewPrivs' in l][0])", "1"),
    ],
    ids=("userfaultfd", "capabilities", "gaining-some"),
)
def test_what_is_taken_away_is_gone(of: str, question: str, answer: str) -> None:
    number = "{'x86_64': 323, 'aarch64': 282}[__import__('os').uname().machine]"
    run = deprived(of, sys.executable, "-c", question.replace("{NUMBER}", number))
    assert run.stdout.strip() == answer, run.stderr
