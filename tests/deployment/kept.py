"""One machine for many tests, on its way between them: to make one and to end it takes as long as to move it."""

import itertools
from collections.abc import Iterator
from typing import Final

from tests.deployment.deployment import Deployment
from tests.deployment.machine import Machine


class Kept:
    """It stays where a test leaves it. A test that fails leaves none: the next one has its own."""

    def __init__(self, site: Deployment) -> None:
        """Keep none yet."""
        self._site: Final = site
        self._numbers: Final[Iterator[int]] = itertools.count(1)
        self._machine: Machine | None = None

    def machine(self) -> Machine:
        """Return it; where there is none it is made on host-a, and every service is as it is shipped before."""
        if self._machine is None:
            self._site.whole()  # a host that is silent may have one of its name
            self.end_all()  # what could not be ended after the last test
            self._machine = Machine.create(self._site, f"guest-{next(self._numbers)}")
        return self._machine

    def make_anew(self) -> None:
        """Make one of the same name on host-a: it is lost."""
        name = self.machine().name
        self._machine = None
        self._machine = Machine.create(self._site, name)

    def check(self, *, failed: bool) -> None:
        """Check that it has the only process of a machine; after a test that `failed` end whatever there is."""
        if failed:
            self.end_all()
            return
        found = self._site.machine_processes()
        if list(found.values()) != [[self.machine().uuid]]:
            self.end_all()
            raise AssertionError(f"Processes should be those of {self.machine().uuid} alone: {found}")

    def end_all(self) -> None:
        """End every attempt and every machine; none has a process then."""
        self._machine = None
        for one in self._site.attempts(ended=False):
            self._site.viaduct("cancel", one.attempt)  # refused past the point of no return, from where it goes on
            self._site.viaduct("watch", one.attempt)
        machines = {uuid for found in self._site.machine_processes().values() for uuid in found}
        destroyed = [self._site.viaduct("machine", "destroy", uuid) for uuid in sorted(machines)]
        refused = [one.err for one in destroyed if one.exit_code != 0]
        assert not refused, refused
        self._site.processes_are({})
