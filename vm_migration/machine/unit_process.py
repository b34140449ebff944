"""`viaduct-machine-start`: becomes one process of a machine, in a unit of its own (viaduct-machine@.service).

::

    agent                                  service manager                    unit
    connect to viaduct-machine.socket ---> starts viaduct-machine@N ------->  this, with the connection as its stdin
    {"module", "arguments"} + descriptors of stdin, stdout, stderr -------->  takes them
    pid  <------------------------------------------------------------------  is that program from here on

The agent needs no right over other units: who may connect to the socket may have a process of a machine started, and
nothing else. Only the standard library is imported, for the interpreter is started twice. One message each way, by
which a connection of packets is bounded; descriptors are what keeps the two alive for each other from there on.
"""

import json
import os
import socket
import sys
from typing import Final

MODULES: Final = ("vfio_host.process.main", "vmm.process.main", "vm_migration.machine.qemu.shim")
MAX_REQUEST: Final = 128 << 10
"""Bytes; a packet of a local socket that is not tuned takes about 200 KiB."""
ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1"}
"""Nothing in a machine multiplies matrices: numpy's threads for it would only cost time to start."""


def request_bytes(module: str, arguments: list[str]) -> bytes:
    """Return what is asked for, as one packet.

    Raises:
        OSError: It does not fit into one.
    """
    packet = json.dumps({"module": module, "arguments": arguments}).encode()
    if len(packet) > MAX_REQUEST:
        raise OSError(f"The arguments of {module} take {len(packet)} bytes; {MAX_REQUEST} are passed on at most")
    return packet


def main() -> None:
    """Take one request from the connection that is stdin, and become what it asks for.

    Exit code 2, and a line in the unit's log, where the request is none of ours, or the agent is gone by now.
    """
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as agent:
        packet, descriptors, _, _ = socket.recv_fds(agent, MAX_REQUEST, 3)
        command = _command(packet)
        if command is None or len(descriptors) != 3:
            sys.stderr.write("Nothing was started: the request names no process of a machine, or lacks its pipes\n")
            sys.exit(2)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        try:
            agent.send(str(os.getpid()).encode())
        except BrokenPipeError:  # it waited for long enough: whatever it starts next must not meet this one
            sys.exit(2)
    os.execve(sys.executable, command, {**os.environ, **ENVIRONMENT})  # noqa: S606 - no shell: what it becomes


def _command(packet: bytes) -> list[str] | None:
    try:
        asked: object = json.loads(packet)
    except ValueError:
        return None
    if not isinstance(asked, dict) or asked.get("module") not in MODULES:
        return None
    arguments: object = asked.get("arguments")
    if not isinstance(arguments, list):
        return None
    words = [word for word in arguments if isinstance(word, str)]
    return [sys.executable, "-m", str(asked["module"]), *words] if len(words) == len(arguments) else None


if __name__ == "__main__":
    main()
