"""The attempt that a call names, as the journals know it."""

from vm_migration.api.v1 import types_pb2
from vm_migration.handover.record import AttemptKey


def attempt_key(message: types_pb2.AttemptKey) -> AttemptKey:
    """Return the key that a message carries."""
    return AttemptKey(message.machine, message.attempt, message.epoch, message.term)
