"""A machine process of this version and one of the next format, which reads this one too: real processes."""

import sys
from pathlib import Path
from uuid import uuid4

from tests.vmm.update.machine_processes import Controller, specification
from vm_migration.machine.launch import launch, take_away
from vm_migration.machine.run_directory import RunDirectory
from vmm.process import control, update_requests
from vmm.process.control import Refusal, Replaced
from vmm.process.image import THIS
from vmm.update.documents import FORMAT

_PROGRAM = f"""
import sys
import vmm.update.documents as documents
documents.FORMAT, documents.READS = {FORMAT + 1}, ({FORMAT + 1}, {FORMAT})
import vmm.process.image as image
image.THIS = tuple(sys.orig_argv[:3])
from vmm.process.main import main
main()
"""
LATER = (sys.executable, "-c", _PROGRAM)
"""A program of the next format, which names itself to those that come after it."""


async def test_a_machine_goes_on_in_a_later_program_and_does_not_come_back(tmp_path: Path) -> None:
    """This version's documents are the later one's previous format; the later one's are none of this version's."""
    made = specification(backend="iommufd", enable_migration="on", viommu=True)
    directory = await launch(RunDirectory(tmp_path), uuid4(), made, incoming=False)
    try:
        with Controller(directory.path / control.CONTROL_SOCKET) as controller:
            before = controller.works(5)
            for _ in range(2):  # from this version's format, and from its own
                reply = controller.ask(update_requests.ReplaceImage(command=LATER))
                assert isinstance(reply, Replaced), reply
                assert controller.works(20).pid == before.pid
            reply = controller.ask(update_requests.ReplaceImage(command=THIS))
            assert isinstance(reply, Refusal), reply
            assert f"format {FORMAT + 1}; this version reads {FORMAT}" in reply.reason
            assert controller.works(20).instance == before.instance
    finally:
        await take_away(directory, None)
