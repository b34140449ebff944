"""What one TCP stream of iperf3 moves from one host to another, as the yardstick of the same run."""

import json
import socket
import subprocess
from collections.abc import Sequence
from typing import Final

_SECONDS: Final = 3


def bytes_per_second(address: str = "127.0.0.1", client: Sequence[str] = (), server: Sequence[str] = ()) -> float:
    """Return the receiver's rate of one stream; `client` and `server` put a command on its host.

    Raises:
        FileNotFoundError: iperf3 is not installed.
        RuntimeError: It said something else.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    listening = subprocess.Popen(
        [*server, "iperf3", "--server", "--one-off", "--bind", address, "--port", port, "--forceflush"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        if listening.stdout is None or not any("listening" in line for line in listening.stdout):
            raise RuntimeError("iperf3 did not listen")
        words = [*client, "iperf3", "--client", address, "--port", port, "--time", str(_SECONDS), "--json"]
        finished = subprocess.run(words, check=True, capture_output=True, text=True, timeout=_SECONDS + 20)
    finally:
        listening.terminate()
        listening.communicate()
    try:
        return float(json.loads(finished.stdout)["end"]["sum_received"]["bits_per_second"]) / 8
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"iperf3 answered with no rate: {error}") from error
