"""QEMU's own TLS, as it is set up for one stream, and taken away again. Both ends are told the same.

::

    files in a folder of our own --object-add, which reads them--> in QEMU's memory; the folder goes at once
    stream over --> parameters empty, objects gone

A process that is killed in between leaves the folder in the machine's, which nobody else can enter, until somebody
speaks for that QEMU again, or the machine goes.

The chain alone would let every certificate of the site in. So a destination has a list of names (authz-list) as well,
in which one stands: the subject of the certificate with which the source asked for the port. The other way round a
source trusts no authority, but the destination's certificate alone. Source: QEMU's own documentation, "TLS setup for
network services" and "Client authorization" (docs/system/tls.rst, authz.rst).
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from vm_migration.machine.errors import MachineRefused
from vm_migration.machine.qemu.answers import Property
from vm_migration.machine.qemu.session import QmpSession
from vmm.process.own_stream import Credentials

FOLDER: Final = "stream-tls"
NO_TLS: Final[dict[str, object]] = {"tls-creds": ""}
"""The parameter of a stream that has no TLS of its own, whatever was set before."""
_CREDENTIALS: Final = "viaduct-stream-tls"
_ADMITTED: Final = "viaduct-stream-source"
_ONLY_1_3: Final = "NORMAL:-VERS-ALL:+VERS-TLS1.3"
"""GnuTLS's words for: no version but 1.3, as on every other connection between hosts."""
_FFDHE2048: Final = b"""-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""
"""The group ffdhe2048 (RFC 7919, A.1). TLS 1.3 has no use for it, but without one QEMU draws its own, for seconds."""
Endpoint = Literal["client", "server"]


class StreamTls:
    """What one QEMU shows, and whom it lets in, in its next stream."""

    def __init__(self, session: QmpSession, folder: Path) -> None:
        """`folder` is the machine's."""
        self._session: Final = session
        self._place: Final = folder / FOLDER

    async def connecting(self, credentials: Credentials, peer: str) -> dict[str, object]:
        """Set it up for a source, and return the parameters; `peer` is the name that the destination has to show.

        Raises:
            MachineRefused: QEMU will not have it, in its own words, or the files cannot be written.
            MachineGone: It does not answer.
        """
        await self._show("client", credentials)
        return {"tls-creds": _CREDENTIALS, "tls-hostname": peer, "tls-authz": ""}

    async def listening(self, credentials: Credentials, admits: tuple[str, ...]) -> dict[str, object]:
        """Set it up for a destination that lets in who has one of these names alone; returns and raises as above."""
        await self._show("server", credentials)
        rules = [{"match": name, "policy": "allow", "format": "exact"} for name in admits]
        await self._session.tell(
            "object-add", {"qom-type": "authz-list", "id": _ADMITTED, "policy": "deny", "rules": rules}
        )
        return {"tls-creds": _CREDENTIALS, "tls-hostname": "", "tls-authz": _ADMITTED}

    async def stands(self) -> bool:
        """Tell whether it is set up: the last stream that was begun went directly; raises as `take_away`."""
        return _CREDENTIALS in await self._objects()

    async def take_away(self) -> None:
        """Have nothing of it in QEMU any more; where there is nothing, nothing is changed.

        Raises:
            MachineRefused: QEMU will not.
            MachineGone: It does not answer.
        """
        ours = await self._objects()
        if ours:
            await self._session.tell("migrate-set-parameters", NO_TLS)
        for name in sorted(ours):
            await self._session.tell("object-del", {"id": name})

    async def _objects(self) -> set[str]:
        objects = await self._session.ask("qom-list", tuple[Property, ...], {"path": "/objects"})
        return {_CREDENTIALS, _ADMITTED} & {each.name for each in objects}

    async def _show(self, endpoint: Endpoint, credentials: Credentials) -> None:
        await self.take_away()
        try:
            with self._files(endpoint, credentials):
                await self._session.tell(
                    "object-add",
                    {
                        "qom-type": "tls-creds-x509",
                        "id": _CREDENTIALS,
                        "dir": str(self._place),
                        "endpoint": endpoint,
                        "verify-peer": True,
                        # Of its own files, of which 10.0 asks that a key be fit for what no elliptic one is used for.
                        "sanity-check": False,
                        "priority": _ONLY_1_3,
                    },
                )
        except OSError as error:
            raise MachineRefused(f"QEMU's certificates cannot be laid out in {self._place}: {error}") from error

    @contextlib.contextmanager
    def _files(self, endpoint: Endpoint, credentials: Credentials) -> Iterator[None]:
        """Have them in a folder for the length of the context, under the names that QEMU looks for."""
        shutil.rmtree(self._place, ignore_errors=True)
        self._place.mkdir(mode=0o700)
        try:
            _write(self._place / "ca-cert.pem", credentials.trusted)
            _write(self._place / f"{endpoint}-cert.pem", credentials.certificate)
            _write(self._place / f"{endpoint}-key.pem", credentials.key)
            if endpoint == "server":
                _write(self._place / "dh-params.pem", _FFDHE2048)
            yield
        finally:
            shutil.rmtree(self._place, ignore_errors=True)


def remove_left(folder: Path) -> None:
    """Keep nothing of what an earlier life left in a machine's folder: a key may be among it."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
