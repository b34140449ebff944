"""What is counted of processes is there, and what they let go of is not."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.footprint import daemon_of, footprint, settled

MIB = 1 << 20
HOLDER = f"""
import mmap, os, subprocess

def come_to(step):
    print(step, flush=True)
    input()

come_to("as it began")
memory = mmap.mmap(-1, {32 * MIB}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for _ in range(32):
    memory.write(bytes({MIB}))
pipe = os.pipe()
come_to("holding")
for each in pipe:
    os.close(each)
memory.close()
come_to("let go")
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
come_to("with a child")
child.kill()
os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
come_to("with one that has ended")
child.wait()
come_to("alone")
"""
"""A process of its own, which goes on at every line: what is counted is what it does, and nothing beside it."""


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-I", "-c", HOLDER]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def steps(process: subprocess.Popen[str]) -> Iterator[str]:
    """Have a holder take its steps; it stands still at each while that is looked at."""
    assert process.stdin is not None
    assert process.stdout is not None
    for step in process.stdout:
        yield step.strip()
        print(file=process.stdin, flush=True)


def test_what_a_process_opens_and_writes_is_counted_and_what_it_lets_go_of_is_not(
    holder: subprocess.Popen[str],
) -> None:
    own = holder.pid
    seen = {step: (footprint([own]), footprint([own, own])) for step in steps(holder)}
    before, held, (after, twice) = seen["as it began"][0], seen["holding"][0], seen["let go"]
    assert held.descriptors == before.descriptors + 2
    assert after.descriptors == before.descriptors
    assert held.anonymous_bytes - after.anonymous_bytes > 24 * MIB
    assert twice.descriptors == 2 * after.descriptors


def test_a_child_counts_until_it_is_reaped(holder: subprocess.Popen[str]) -> None:
    seen = {step: asyncio.run(settled(holder.pid, 1)).children for step in steps(holder)}
    assert list(seen.values()) == [0, 0, 0, 1, 1, 0], seen


def test_a_daemon_is_found_by_its_program_and_its_configuration(tmp_path: Path) -> None:
    configuration = tmp_path / "host-a.toml"
    lives = "print(flush=True); input()"  # before that its command line is not there yet, for a moment
    words = [sys.executable, "-c", lives, "program-of-this-test", "--config", str(configuration)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        daemon.stdout.readline()
        assert daemon_of("program-of-this-test", configuration) == daemon.pid
        with pytest.raises(RuntimeError, match="0 processes"):
            daemon_of("program-of-this-test", tmp_path / "host-b.toml")
        daemon.communicate(b"\n")
