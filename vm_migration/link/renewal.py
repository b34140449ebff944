"""Certificates that are replaced under a daemon that serves: each new connection shows the files as they are then.

::

    stamp of the files unchanged        -> what was read last
    changed, usable, the same identity  -> what they hold now
    changed, else                       -> what was read last, and one warning: half a replacement shuts nobody out;
                                           it is tried again (vm_migration.link.changed_files)

Connections that are open keep what they were opened with; nobody is cut off by a renewal.
"""

import threading
import time
from collections.abc import Callable
from typing import Final, cast

import grpc

from vm_migration.errors import InvalidInput
from vm_migration.link.changed_files import NOT_RENEWED, Followed
from vm_migration.link.tls import Stamp, TlsFiles, TlsMaterial
from vm_migration.telemetry import logs
from vm_migration.telemetry.counts import CONNECTIONS

_log: Final = logs.get(__name__)
_Configuration = grpc.ServerCertificateConfiguration


class Renewal:
    """Follows the files of one identity; it may be asked by several threads at once."""

    def __init__(self, files: TlsFiles, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the files for the first time.

        Raises:
            InvalidInput: They are unusable.
        """
        self._files: Final = files
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        # Looked at before they are read: a change in between is seen at the next look.
        self._followed: Final = Followed(files.stamp())
        self._material = files.load()

    @property
    def material(self) -> TlsMaterial:
        """What was usable last."""
        return self._material

    def renewed(self) -> TlsMaterial | None:
        """Return what the files hold, where that is usable and has changed since they were asked last; else None."""
        with self._lock:
            stamp, now = self._now(), self._clock()
            if not self._followed.due(stamp, now):
                return None
            try:
                found = self._usable()
            except InvalidInput as error:
                if self._followed.failed(stamp, now):
                    _log.warning(NOT_RENEWED, code=error.code, reason=error.message)
                return None
            self._followed.took(stamp)
            if found == self._material:
                return None
            self._material = found
        _log.info("certificate renewed", identity=found.identity.uri, expires=found.expires.isoformat())
        return found

    def _now(self) -> Stamp:
        try:
            return self._files.stamp()
        except InvalidInput:  # a file is missing; `_usable` says which
            return ()

    def _usable(self) -> TlsMaterial:
        found = self._files.load()
        if found.identity != self._material.identity:
            text = f"{self._files.certificate} is of {found.identity.uri}, and this is {self._material.identity.uri}"
            raise InvalidInput("other-identity", text, "Issue it for this one: viaduct pki renew")
        return found


def server_credentials(renewal: Renewal) -> grpc.ServerCredentials:
    """Return credentials that require a certificate of the authority from every client, and follow the files."""

    def fetch() -> _Configuration | None:  # by a thread of gRPC's, before each handshake
        CONNECTIONS.add("calls")
        renewed = renewal.renewed()
        return None if renewed is None else _configuration(renewed)

    # The stubs do not know that None stands for no change.
    fetcher = cast("Callable[[], _Configuration]", fetch)
    first = _configuration(renewal.material)
    return grpc.dynamic_ssl_server_credentials(first, fetcher, require_client_authentication=True)


def _configuration(material: TlsMaterial) -> _Configuration:
    pairs = [(material.key, material.certificate)]
    return grpc.ssl_server_certificate_configuration(pairs, root_certificates=material.ca)
