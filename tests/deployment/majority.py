"""The etcd of the deployed site loses its majority, and gets it back.

::

    one member of one  ->  a second is added, and does not run: one of two  ->  it runs: two of two  ->  it is removed
"""

import contextlib
import re
import time
from collections.abc import Iterator
from typing import Final

from tests.deployment.deployment import CONTROL, Deployment

_PEER: Final = "http://localhost:2390"
_CLIENT: Final = "http://localhost:2391"
_FOLDER: Final = "/tmp/second"  # noqa: S108  # in a container
_SECOND: Final = (
    *("etcd", f"--data-dir={_FOLDER}", f"--listen-client-urls={_CLIENT}", f"--advertise-client-urls={_CLIENT}"),
    f"--listen-peer-urls={_PEER}",
)
_ETCDCTL: Final = (
    *("etcdctl", f"--endpoints=https://{CONTROL}.6:2379", "--cacert=/etc/viaduct/ca.pem"),
    *("--cert=/etc/viaduct/orchestrator.pem", "--key=/etc/viaduct/orchestrator.key"),
)
_SECONDS: Final = 60.0


class Majority:
    """That of the site's etcd, which is lost."""

    def __init__(self, site: Deployment, settings: list[str]) -> None:
        """Remember how the second member is started, as etcd said."""
        self._site = site
        self._settings = settings
        self.lost = True

    def regain(self) -> None:
        """Start the second member."""
        if self.lost:
            words = [word for setting in self._settings for word in ("--env", setting.replace('"', ""))]
            self._site.engine.docker("exec", "--detach", *words, self._site.container("etcd"), *_SECOND)
            self.lost = False


@contextlib.contextmanager
def lost_majority(site: Deployment) -> Iterator[Majority]:
    """Have no majority of etcd's members until it is regained; at the end there is one member, as before."""
    told = _etcdctl(site, "member", "add", "second", f"--peer-urls={_PEER}")
    identifier = re.search(r"^Member\s+(\w+) added", told, re.MULTILINE)
    assert identifier is not None, told
    majority = Majority(site, re.findall(r"^(ETCD_\w+=.*)$", told, re.MULTILINE))
    try:
        yield majority
    finally:
        majority.regain()
        _remove(site, identifier[1])


def _remove(site: Deployment, member: str) -> None:
    """Remove the second member, which ends by that; none is removed before all have spoken with each other for 5 s."""
    until = time.monotonic() + _SECONDS
    while True:
        with contextlib.suppress(RuntimeError):
            _etcdctl(site, "member", "remove", member)
            site.inside("etcd", "rm", "-rf", _FOLDER)
            return
        assert time.monotonic() < until, f"Member {member} cannot be removed"
        time.sleep(0.5)  # nothing tells when it may be


def _etcdctl(site: Deployment, *words: str) -> str:
    """Run the client as one of the orchestrators: nobody else is let in."""
    like = site.container("orchestrator-1")
    place = ("--network", f"container:{like}", "--volumes-from", like)
    return site.engine.docker("run", "--rm", *place, site.environment["VIADUCT_SERVICES_IMAGE"], *_ETCDCTL, *words)
