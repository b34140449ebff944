"""What one TCP stream of iperf3 moves on loopback, as the yardstick of the same run."""

import json
import socket
import subprocess
from typing import Final

_SECONDS: Final = 3


def bytes_per_second() -> float:
    """Return the receiver's rate of one stream.

    Raises:
        FileNotFoundError: iperf3 is not installed.
        RuntimeError: It said something else.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    server = subprocess.Popen(
        ["iperf3", "--server", "--one-off", "--bind", "127.0.0.1", "--port", port, "--forceflush"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        if server.stdout is None or not any("listening" in line for line in server.stdout):
            raise RuntimeError("iperf3 did not listen")
        client = ["iperf3", "--client", "127.0.0.1", "--port", port, "--time", str(_SECONDS), "--json"]
        finished = subprocess.run(client, check=True, capture_output=True, text=True, timeout=_SECONDS + 20)
    finally:
        server.terminate()
        server.communicate()
    try:
        return float(json.loads(finished.stdout)["end"]["sum_received"]["bits_per_second"]) / 8
    except (ValueError, KeyError, TypeError) as error:
        raise RuntimeError(f"iperf3 answered with no rate: {error}") from error
