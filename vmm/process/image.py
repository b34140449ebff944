"""The program of this process, and how another one takes its place: execve, with everything open that is kept.

::

    image before  --replace-->    new image  --takes over, runs, answers who asked-->
                  <--give_back--      '-- refuses what it finds: the one before takes over again, and says why

The process stays: its id, its start, its name to agents and journals. Between two images nobody can be asked anything,
so that whoever wants a new one has it try what it can beforehand (docs/update.md).
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from vmm.process.control import AnyReply, Refusal, Replaced
from vmm.process.successor import NotTakenOver
from vmm.update.kept import Stop

KEPT: Final = "--kept"
FORMER: Final = "--former"
REFUSED: Final = "--refused"
THIS: Final = (sys.executable, "-m", "vmm.process.main")
"""How the program of this process is called; a version installed over this one is called the same."""


@dataclass(frozen=True, slots=True)
class Image:
    """What every image of a process is told on its command line."""

    directory: Path
    machine: str

    def replace(self, command: Sequence[str], kept: int, descriptors: Sequence[int]) -> NoReturn:
        """Run another command, with these descriptors open, and the one of the memory file that says what they are.

        Raises:
            NotTakenOver: There is no such program, or the kernel refuses. Nothing has changed.
        """
        try:
            for each in descriptors:
                os.set_inheritable(each, True)
            self._become(command, KEPT, str(kept), FORMER, json.dumps(THIS))
        except OSError as error:
            for each in descriptors:
                os.set_inheritable(each, False)
            raise NotTakenOver(f"{command[0]} cannot be run: {error}") from error

    def give_back(self, former: Sequence[str], kept: int, why: str) -> NoReturn:
        """Run the command of the image before again, which finds everything as it left it.

        Raises:
            OSError: There is no such program any more.
        """
        self._become(former, KEPT, str(kept), REFUSED, why)

    def _become(self, command: Sequence[str], *more: str) -> NoReturn:
        arguments = [*command, "--directory", str(self.directory), "--machine", self.machine, *more]
        sys.stdout.flush()
        os.execvp(arguments[0], arguments)  # noqa: S606 - who asks commands the machine, and is the same user


def answer(stop: Stop, refused: str, executed_ns: int) -> AnyReply:
    """Return what whoever asked for another program is told once the machine goes on, with it or the former."""
    if refused:
        return Refusal(reason=f"The other program refused: {refused}")
    return Replaced(
        pause=stop.pause,
        was_running=stop.was_running,
        last_executed_ns=stop.last_executed_ns,
        executed_ns=executed_ns,
    )
