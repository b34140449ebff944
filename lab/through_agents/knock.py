"""What the destination agent runs while neither copy does: tells the lab, and waits until it has looked.

Standard library only, and run as a file: it lengthens a standstill by the start of a bare interpreter.
"""

import os
import socket
import sys


def main() -> int:
    """Send the machine's and the attempt's id to the socket that is the only argument; 0 when the lab is done."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lab:
        lab.connect(sys.argv[1])
        lab.sendall(f"{os.environ['VIADUCT_MACHINE']} {os.environ['VIADUCT_ATTEMPT']}\n".encode())
        return 0 if lab.recv(16) == b"seen\n" else 1


if __name__ == "__main__":
    sys.exit(main())
