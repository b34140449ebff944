"""A new process beside a QEMU that has lost its own.

The shim can be killed and QEMU live on, with nobody whom it obeys. Whoever finds nobody at the control socket starts
another shim: it takes over what the first kept on disk (the fence, how often the guest stopped), under the same name,
so that the instance in the journals is the same one. Of two who come at a time one starts it.
"""

from typing import Final

import msgspec

from vm_migration.machine.coming_up import ComingUp, start
from vm_migration.machine.errors import MachineError
from vm_migration.machine.launch import end_process, machine_arguments
from vm_migration.machine.qemu.process_file import SHIM
from vm_migration.machine.run_directory import Instance, MachineDirectory, lives
from vm_migration.machine.starting import Starter
from vm_migration.telemetry import logs
from vmm.assembly.document_faults import InvalidDocument
from vmm.assembly.specification import parse_specification
from vmm.process.identity import boot_id

_READY_SECONDS: Final = 20.0
_log: Final = logs.get(__name__)


async def revived(directory: MachineDirectory, starter: Starter) -> bool:
    """Start another process beside a QEMU that lives and has none; tell whether somebody is to be found there now."""
    with directory.claimed() as mine:
        instance = directory.instance()
        if not mine or instance is None or not _lost(directory, instance):
            return False
        started: list[ComingUp] = []
        arguments = [*machine_arguments(directory, incoming=False), "--again", msgspec.json.encode(instance).decode()]
        try:
            shim = await start(starter, SHIM, arguments, directory, started)
            await shim.says("ready", _READY_SECONDS)
            directory.write_instance(msgspec.structs.replace(instance, host=shim.id))
            shim.keep()
        except BaseException as error:
            for process in started:
                await end_process(process.id, kill=True)
                process.close()
            if isinstance(error, MachineError | OSError):
                _log.warning("nobody speaks for a QEMU", machine=str(directory.machine), reason=str(error))
                return False
            raise
    _log.warning("another process speaks for a QEMU that lost its own", machine=str(directory.machine))
    return True


def _lost(directory: MachineDirectory, instance: Instance) -> bool:
    try:
        is_qemu = parse_specification(directory.specification()).qemu is not None
    except (MachineError, InvalidDocument):
        return False
    return is_qemu and instance.boot_id == boot_id() and lives(instance.vmm) and not lives(instance.host)
