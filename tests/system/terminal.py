"""`viaduct watch` on a terminal, as a person has it."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

from tests.system.command import DEADLINE
from tests.system.daemons import environment, program
from tests.system.site import Site


def drawn(site: Site, words: list[str], config: Path | None = None) -> tuple[str, int]:
    """Run `viaduct watch` on a terminal until it shows these words, then interrupt it; return all that it wrote."""
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    command = [program("viaduct"), "watch", "--config", str(config or site.configuration("operator"))]
    there = {**environment(), "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=its_end, stderr=its_end, env=there) as process:
        os.close(its_end)
        found, interrupted = b"", False
        readable, until = select.poll(), time.monotonic() + DEADLINE
        readable.register(terminal, select.POLLIN)
        try:
            while readable.poll(max(0.0, until - time.monotonic()) * 1000):
                found += os.read(terminal, 65536)
                if not interrupted and all(word.encode() in found for word in words):
                    process.send_signal(signal.SIGINT)
                    interrupted = True
        except OSError:  # the other end is closed: it has ended
            pass
        finally:
            process.kill()
            os.close(terminal)
    return found.decode(), process.returncode
