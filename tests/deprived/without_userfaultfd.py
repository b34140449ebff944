"""Runs a command that, with all it starts, may not call userfaultfd, as under a container's seccomp profile.

Usage: python -m tests.deprived.without_userfaultfd COMMAND [ARGUMENT ...]
"""

import ctypes
import os
import struct
import sys

_NUMBERS = {"x86_64": (323, 0xC000003E), "aarch64": (282, 0xC00000B7)}
"""userfaultfd's number, and the architecture as seccomp names it (linux/audit.h)."""
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1
"""SECCOMP_RET_ALLOW, and SECCOMP_RET_ERRNO with EPERM."""
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def deny() -> None:
    """Take userfaultfd from this process and all that it starts, for good.

    Raises:
        OSError: The kernel refused the filter.
    """
    call, architecture = _NUMBERS[os.uname().machine]
    instruction = struct.Struct("<HBBI").pack
    code = (
        instruction(_LOAD, 0, 0, _ARCHITECTURE_AT)
        + instruction(_JUMP_IF_EQUAL, 0, 3, architecture)
        + instruction(_LOAD, 0, 0, _NUMBER_AT)
        + instruction(_JUMP_IF_EQUAL, 0, 1, call)
        + instruction(_RETURN, 0, 0, _REFUSE)
        + instruction(_RETURN, 0, 0, _ALLOW)
    )
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "Seccomp filter refused")


if __name__ == "__main__":
    deny()
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606  # the command that we were given
