"""The update of a machine out of this process into another one on the same host.

::

    offer ----> hand_over ----> (the other runs, this one ends)
                    |
                    '---------> take_back: as if nothing had been
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn

from vmm.assembly.machine import Machine
from vmm.assembly.machine_state import InvalidState
from vmm.process.fence import Fence
from vmm.process.image import Image
from vmm.process.interrupts import Interrupts
from vmm.process.successor import NotTakenOver, Successor, Unanswered
from vmm.update import suspended_machine
from vmm.update.blockers import Mode, UpdateFinding, judge_update
from vmm.update.documents import FORMAT, InvalidHandover, Mapping, StateDocument, encode
from vmm.update.file_systems import why_nothing_beside
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
from vmm.update.taking_over import AdoptedMachine
from vmm.vfio.host_port import HostCallFailed

_FAILURES: Final = (NotTakenOver, HostCallFailed, InvalidHandover, InvalidState, MemoryError, OSError)
"""By which a machine stays in this process, after it was let go of too."""


class Update:
    """Where the update of a machine stands; `handed_over` while this process has it no more, or not all of it."""

    def __init__(
        self, machine: Machine, name: str, interrupts: Interrupts | None = None, image: Image | None = None
    ) -> None:
        """Begin with a machine that this process has, or is to have.

        Without `interrupts` nobody else can have them; without `image` no other program can take this one's place.
        """
        self.handed_over = False
        self._machine: Final = machine
        self._name: Final = name
        self._interrupts: Final = interrupts
        self._image: Final = image
        self._successor: Successor | None = None
        self._adopted: AdoptedMachine | None = None
        self._mappings: tuple[tuple[Mapping, ...], ...] = ()
        self._left: Path | None = None
        self._found: Path | None = None
        self._unanswered = False
        """A process that was silent may have made mappings its own after they were taken back from it."""

    @property
    def owns_interrupts(self) -> bool:
        """Whether devices' completions are this process's to take: of two that have the eventfds, one may."""
        return self._interrupts is None or self._interrupts.taken

    def took_over(self, adopted: AdoptedMachine) -> None:
        """Note a machine that was another process's, and settles before it runs."""
        self._adopted = adopted

    def found_at(self, path: Path) -> None:
        """Note where the machine waited, suspended; nothing waits there any more once this process has it."""
        self._found = path

    def blockers(self, mode: Mode = "transfer") -> tuple[UpdateFinding, ...]:
        """Return what keeps the machine in this process."""
        machine, ram = self._machine, self._machine.specification.memory.path
        return judge_update(
            facts_of(machine),
            mode,
            suspended=machine.suspended,
            tracking=machine.tracking,
            keeps_ram=ram is not None,
            nothing_beside=why_nothing_beside(Path(ram)) if mode == "reboot" and ram is not None else "",
        )

    def require_unblocked(self, mode: Mode = "transfer") -> None:
        """Check that nothing keeps the machine in this process, or with this program.

        Raises:
            NotTakenOver: With every blocker.
        """
        found = self.blockers(mode)
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

    def hand_over(self, fence: Fence, stop: Stop, patience: float) -> None:
        """Stop vCPUs, and let the other process have the machine; it may take so many seconds.

        Raises:
            NotTakenOver: This process has it as before, and the offer is over.
            HostCallFailed: Nobody has all of it: it stands still until `have_again`.
        """
        with self._standing_still(stop):
            if self._successor is None:
                raise NotTakenOver("No process was offered this machine")
            self._mappings = mappings_of(self._machine)
            self.handed_over = True  # until all of it is taken back
            try:
                abandon(self._machine)
                self._successor.hand_over(self._state(fence, stop.pause), patience)
            except _FAILURES as error:
                self.take_back()
                self._unanswered = isinstance(error, Unanswered)
                raise _not_taken_over(error) from error
        self._give_up_interrupts()

    def rehearse(self, fence: Fence, pause: int, patience: float) -> None:
        """Have the process that it was offered load where the machine stands; the guest waits, so many seconds at most.

        What is sent names no mapping, so that no process takes it for a machine that was let go of. The offer is over.

        Raises:
            NotTakenOver: That process cannot have the machine, or does not say so.
        """
        if self._successor is None:
            raise NotTakenOver("No process was offered this machine")
        self._mappings = ()
        try:
            self._successor.hand_over(self._state(fence, pause), patience)
        except (InvalidState, MemoryError, OSError) as error:
            raise _not_taken_over(error) from error
        finally:
            self.withdraw()

    def replace_image(
        self, command: Sequence[str], fence: Fence, stop: Stop, *, asker: Asker, instance: str
    ) -> NoReturn:
        """Stop vCPUs, and let another program have the machine, in this process.

        Raises:
            NotTakenOver: This one has it as before.
            HostCallFailed: It has not all of it: the machine stands still until `have_again`.
        """
        if self._image is None or not command:
            raise NotTakenOver("No program can take the place of this one")
        self.require_unblocked("exec")
        self.withdraw()
        with self._standing_still(stop):
            self._mappings = mappings_of(self._machine)
            try:
                document = early_document(self._machine, self._name)
                by_name = numbers_of(self._machine, objects_of(self._machine))
                numbers = tuple(by_name[each] for each in document.descriptors)
                self._give_up_interrupts()
                self.handed_over = True  # until all of it is taken back
                abandon(self._machine)
                state = encode(self._state(fence, stop.pause))
                kept = write(Kept(FORMAT, encode(document), state, numbers, instance, stop, asker))
                try:
                    self._image.replace(command, kept, (*numbers, asker.descriptor))
                finally:
                    os.close(kept)
            except _FAILURES as error:
                self.take_back()
                raise _not_taken_over(error) from error

    def leave(self, path: Path, fence: Fence, stop: Stop) -> None:
        """Leave a machine whose guest is suspended in its RAM's file and another one: mode reboot.

        Raises:
            NotTakenOver: This process has it as before.
        """
        self.withdraw()
        self.require_unblocked("reboot")
        size = self._machine.memory.block.size
        with self._standing_still(stop):
            self._mappings = ()
            try:
                os.fsync(self._machine.memory.block.descriptor)  # where a disk holds RAM, before a file says so
                suspended_machine.write(path, self._name, size, self._state(fence, stop.pause))
            except (OSError, InvalidState, MemoryError) as error:
                raise NotTakenOver(f"Machine cannot be left at {path}: {error}") from error
        self._left, self.handed_over = path, True
        self._give_up_interrupts()

    def have_again(self) -> None:
        """Have a machine back that was handed over, or let one that was taken over settle.

        Its interrupts come first: where another process has them, it runs the guest.

        Raises:
            HostCallFailed: Another process has it, or the host refused a part. Interrupts that this took are nobody's.
            NotTakenOver: What says that it waits, suspended, cannot be taken away. Interrupts are the same.
        """
        self.withdraw()  # an offer that came to nothing
        had = self.owns_interrupts
        if self._interrupts is not None:
            self._interrupts.take()
        try:
            self._have_all()
        except _FAILURES:
            if not had:
                self._give_up_interrupts()
            raise

    def _have_all(self) -> None:
        if self.handed_over or self._unanswered:
            self.take_back()
        if self._adopted is not None:
            self._adopted.settle()
            self._adopted = None
        if self._found is not None:
            _take_away(self._found)
            self._found = None

    @contextlib.contextmanager
    def _standing_still(self, stop: Stop) -> Iterator[None]:
        """Keep vCPUs still; where nothing comes of it, they go on if they ran."""
        self._machine.stand_still()
        try:
            yield
        except NotTakenOver:
            if self._interrupts is not None:
                self._interrupts.take()
            if stop.was_running:
                self._machine.start()
            raise

    def _give_up_interrupts(self) -> None:
        if self._interrupts is not None:
            self._interrupts.give_up()

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
        self._unanswered = False
        if self._left is None:
            take_back(self._machine, self._mappings)
        else:
            _take_away(self._left)
            self._left = None
        self.handed_over = False

    def withdraw(self) -> None:
        """Take an offer back: the process that waited gives up."""
        if self._successor is not None:
            with contextlib.suppress(OSError):
                self._successor.close()
            self._successor = None


def _not_taken_over(error: BaseException) -> NotTakenOver:
    return NotTakenOver(str(error) or type(error).__name__)


def _take_away(path: Path) -> None:
    try:
        suspended_machine.remove(path)
    except OSError as error:
        raise NotTakenOver(f"{path} says that the machine waits, and cannot be taken away: {error}") from error
