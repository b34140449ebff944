"""Real machine code and text for a guest: a fixed list of the host's own files.

Compression, zero detection and digests mean something only on data as it occurs. The list is resolved in its order;
files that this host does not have are skipped, and the hash says what was really used.
"""

import hashlib
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from vmm.guest.material import Material
from vmm.memory.quantities import PAGE_SIZE

_FILE_LIMIT: Final = 8 << 20
_LIBRARIES: Final = ("libc.so.6", "libcrypto.so.3", "libstdc++.so.6", "libm.so.6", "libssl.so.3")
_PROGRAMS: Final = ("/usr/bin/bash", "/usr/bin/git", "/usr/bin/perl", "/usr/bin/tar")
# fmt: off
_MODULES: Final = (
    "_pydatetime", "_pydecimal", "_pyio", "argparse", "ast", "base64", "bdb", "calendar", "codecs",
    "collections/__init__", "configparser", "copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "dis",
    "doctest", "enum", "fractions", "ftplib", "functools", "gettext", "gzip", "heapq", "imaplib", "inspect",
    "ipaddress", "locale", "mailbox", "mimetypes", "ntpath", "optparse", "os", "pathlib", "pdb", "pickle",
    "pickletools", "platform", "plistlib", "posixpath", "pstats", "pydoc", "random", "shutil", "smtplib",
    "socket", "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap", "threading",
    "tokenize", "traceback", "trace", "turtle", "typing", "unittest/mock", "uuid", "warnings", "weakref",
    "zipfile",
)
# fmt: on
_LICENSES: Final = ("Apache-2.0", "Artistic", "BSD", "GFDL-1.3", "GPL-2", "GPL-3", "LGPL-2.1", "LGPL-3", "MPL-2.0")


class NoMaterial(Exception):
    """This host has none of the files that a guest's memory is made of. Nothing was written."""


def read_material() -> Material:
    """Read the host's files, each up to 8 MiB, about 30 MiB in all.

    Raises:
        NoMaterial: No code or no text is readable on this host.
    """
    code_files, code = _read(_code_paths())
    text_files, text = _read(_text_paths())
    if len(code) < PAGE_SIZE or len(text) < PAGE_SIZE:
        raise NoMaterial(f"Host has no {'text' if code else 'machine code'} to fill a guest's memory with")
    digest = hashlib.sha256(code)
    digest.update(text)
    return Material(code, text, (*code_files, *text_files), digest.hexdigest())


def _code_paths() -> Iterable[Path]:
    triplet = sysconfig.get_config_var("MULTIARCH") or ""
    for library in _LIBRARIES:
        yield from (Path("/usr/lib") / triplet / library, Path("/usr/lib64") / library)
    yield from map(Path, _PROGRAMS)
    yield Path(sys.executable).resolve()
    name, folder = sysconfig.get_config_var("INSTSONAME"), sysconfig.get_config_var("LIBDIR")
    if name and folder:
        yield Path(folder) / name


def _text_paths() -> Iterable[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    yield from (library / f"{module}.py" for module in _MODULES)
    yield from (Path("/usr/share/common-licenses") / name for name in _LICENSES)


def _read(paths: Iterable[Path]) -> tuple[list[str], bytes]:
    files: dict[str, bytes] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                content = file.read(_FILE_LIMIT)
        except OSError:  # this host does not have it, or keeps it to itself
            continue
        files.setdefault(str(path), content)
    return list(files), b"".join(files.values())
