"""Memory in huge pages whatever the host's setting for shared memory: a file of a tmpfs that nobody else can see.

A memfd gets huge pages only where /sys/kernel/mm/transparent_hugepage/shmem_enabled allows it, and the usual setting is
`never`. A tmpfs has a setting of its own (`huge=always`, Documentation/admin-guide/mm/transhuge.rst), and one that was
made and never attached (fsopen(2), fsmount(2)) is in no mount table; it goes with the last descriptor of its file.

First touch then costs a fault for each 2 MiB instead of each 4 KiB, in every process that maps the file.
"""

import ctypes
import os
from typing import Final

_SYS_FSOPEN: Final = 430
_SYS_FSCONFIG: Final = 431
_SYS_FSMOUNT: Final = 432
_FSOPEN_CLOEXEC: Final = 1
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_FSMOUNT_CLOEXEC: Final = 1
_NOSUID_NODEV_NOEXEC: Final = 2 | 4 | 8
_HUGE_PAGE: Final = 2 << 20
_libc: Final = ctypes.CDLL(None, use_errno=True)


def huge_file(name: str, size: int) -> int | None:
    """Return an empty file with room for so many bytes, in huge pages; None where this process may not have one.

    That needs CAP_SYS_ADMIN and a kernel with huge pages. Room for one huge page more is kept: a size that is not a
    multiple of 2 MiB ends in one.
    """
    try:
        context = _call(_SYS_FSOPEN, b"tmpfs", _FSOPEN_CLOEXEC)
    except OSError:
        return None
    try:
        room = -(-size // _HUGE_PAGE) * _HUGE_PAGE + _HUGE_PAGE
        for key, value in ((b"huge", b"always"), (b"size", str(room).encode()), (b"mode", b"0700")):
            _call(_SYS_FSCONFIG, context, _FSCONFIG_SET_STRING, key, value, 0)
        _call(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        mount = _call(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, _NOSUID_NODEV_NOEXEC)
    except OSError:
        return None
    finally:
        os.close(context)
    try:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=mount)
    except OSError:
        return None
    finally:
        os.close(mount)


def _call(number: int, *arguments: bytes | int | None) -> int:
    """Make a system call.

    Raises:
        OSError: It failed.
    """
    # Each argument takes a whole register: an int as ctypes passes it would leave half of one undefined.
    words = [ctypes.c_long(each) if isinstance(each, int) else ctypes.c_char_p(each) for each in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
