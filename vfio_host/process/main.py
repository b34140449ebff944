"""`viaduct-vfio-host`: the kernel's and the hardware's part of one machine.

Exit codes: 0 after SIGTERM or when the machine is gone, 2 for a configuration or socket that cannot be had.
"""

import argparse
import contextlib
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from vfio_host.errors import ConfigurationInvalid
from vfio_host.interface.calls import HostConfiguration
from vfio_host.interface.channel import listening_at
from vfio_host.interface.large_buffers import keep_large_buffers
from vfio_host.process.host import Host
from vfio_host.process.loop import HostLoop
from vfio_host.process.memory_limits import limit_of, no_limit


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one machine until it is gone; return the exit code."""
    parser = argparse.ArgumentParser(prog="viaduct-vfio-host", description="The host's part of one machine.")
    parser.add_argument("--socket", type=Path, required=True, metavar="PATH", help="where to listen")
    parser.add_argument("--configuration", required=True, metavar="JSON", help="devices and IOMMU of this host")
    parser.add_argument(
        "--hold", action="store_true", help="end when stdin ends before a line came on it: nobody knows of us yet"
    )
    options = parser.parse_args(arguments)
    gc.freeze()  # what was imported stays: the collector need not look at it again, now or at the end
    keep_large_buffers()
    with contextlib.ExitStack() as held:
        try:
            configuration = msgspec.json.decode(options.configuration, type=HostConfiguration)
            host = Host(configuration, limit_of if configuration.limits_locked_memory else no_limit)
            listener = held.enter_context(listening_at(options.socket))
        except (msgspec.DecodeError, ConfigurationInvalid) as error:
            sys.stderr.write(f"Configuration of the host is invalid: {error}\n")
            return 2
        except OSError as error:
            sys.stderr.write(f"Host cannot listen at {options.socket}: {error}\n")
            return 2
        loop = HostLoop(host, listener, held.enter_context(_woken_by_signals()))
        if options.hold:
            loop.hold(sys.stdin.fileno())
        with contextlib.suppress(OSError):  # whoever started us need not read
            sys.stdout.write(json.dumps({"event": "ready", "pid": os.getpid()}) + "\n")
            sys.stdout.flush()
        loop.run()
    return 0


@contextlib.contextmanager
def _woken_by_signals() -> Iterator[socket.socket]:
    """Yield a socket that becomes readable on SIGTERM and SIGINT."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(-1)


if __name__ == "__main__":
    sys.exit(main())
