"""The update of a machine out of this process into another one on the same host.

::

    offer ----> hand_over ----> (the other runs, this one ends)
                    |
                    '---------> take_back: as if nothing had been
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from vmm.assembly.machine import Machine
from vmm.assembly.machine_state import InvalidState
from vmm.process.fence import Fence
from vmm.process.image import Image
from vmm.process.successor import NotTakenOver, Successor
from vmm.update.blockers import UpdateFinding, judge_update
from vmm.update.documents import FORMAT, InvalidHandover, Mapping, StateDocument, encode
from vmm.update.handing_over import (
    close_all,
    early_document,
    for_another_process,
    numbers_of,
    objects_of,
    state_document,
)
from vmm.update.kept import Asker, Kept, Stop, write
from vmm.update.ownership import abandon, facts_of, mappings_of, take_back
from vmm.vfio.host_port import HostCallFailed


class Update:
    """Where the update of a machine stands; `handed_over` while another process has it."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.handed_over = False
        self._machine: Final = machine
        self._name: Final = name
        self._successor: Successor | None = None
        self._mappings: tuple[tuple[Mapping, ...], ...] = ()

    def blockers(self) -> tuple[UpdateFinding, ...]:
        """Return what keeps the machine in this process."""
        return judge_update(facts_of(self._machine), "transfer", suspended=False, tracking=self._machine.tracking)

    def require_unblocked(self) -> None:
        """Check that nothing keeps the machine in this process, or with this program.

        Raises:
            NotTakenOver: With every blocker.
        """
        found = self.blockers()
        if found:
            raise NotTakenOver("; ".join(f"{each.code}: {each.device} {each.message}".strip() for each in found))

    def offer(self, path: Path) -> None:
        """Tell the process that waits at a path what there is; the guest runs on. An earlier offer is over.

        Raises:
            NotTakenOver: The machine cannot be handed over, or nobody waits there.
            HostCallFailed: The host has no more descriptors.
        """
        self.withdraw()
        self.require_unblocked()
        objects = for_another_process(self._machine)
        try:
            document, numbers = early_document(self._machine, self._name), numbers_of(self._machine, objects)
            self._successor = Successor(path, document, tuple(numbers[each] for each in document.descriptors))
        except InvalidHandover as error:
            raise NotTakenOver(str(error)) from error
        finally:
            close_all(objects)

    def hand_over(self, fence: Fence, pause: int, patience: float) -> None:
        """Let the other process have the machine, whose vCPUs stand still; it may take so many seconds.

        Raises:
            NotTakenOver: This process has it as before, and the offer is over.
        """
        if self._successor is None:
            raise NotTakenOver("No process was offered this machine")
        self._mappings = mappings_of(self._machine)
        try:
            abandon(self._machine)
            self._successor.hand_over(self._state(fence, pause), patience)
        except (NotTakenOver, HostCallFailed, InvalidState) as error:
            self.take_back()
            raise NotTakenOver(str(error)) from error
        self.handed_over = True

    def replace_image(
        self, image: Image, command: Sequence[str], fence: Fence, stop: Stop, *, asker: Asker, instance: str
    ) -> NoReturn:
        """Let another program have the machine, whose vCPUs stand still, in this process.

        Raises:
            NotTakenOver: This one has it as before.
        """
        self.withdraw()
        self._mappings = mappings_of(self._machine)
        try:
            document = early_document(self._machine, self._name)
            by_name = numbers_of(self._machine, objects_of(self._machine))
            numbers = tuple(by_name[each] for each in document.descriptors)
            abandon(self._machine)
            state = encode(self._state(fence, stop.pause))
            kept = write(Kept(FORMAT, encode(document), state, numbers, instance, stop, asker))
            try:
                image.replace(command, kept, (*numbers, asker.descriptor))
            finally:
                os.close(kept)
        except (NotTakenOver, HostCallFailed, InvalidHandover, InvalidState, OSError) as error:
            self.take_back()
            raise NotTakenOver(str(error)) from error

    def _state(self, fence: Fence, pause: int) -> StateDocument:
        return state_document(
            self._machine,
            self._mappings,
            pause=pause,
            epoch=fence.epoch,
            controller=fence.controller,
            released=fence.released,
        )

    def take_back(self) -> None:
        """Have the machine again as before; the other process must not run it.

        Raises:
            HostCallFailed: The host did not give all mappings back; asking again goes on from there.
        """
        self.withdraw()
        take_back(self._machine, self._mappings)
        self.handed_over = False

    def withdraw(self) -> None:
        """Take an offer back: the process that waited gives up."""
        if self._successor is not None:
            with contextlib.suppress(OSError):
                self._successor.close()
            self._successor = None
