"""For which attempts a host may speak: those of which it is the source, as the journal here says. Pure."""

from vm_migration.errors import Unauthorised
from vm_migration.handover.record import AttemptKey, Record


def require_speaker(record: Record, key: AttemptKey, speaker: str | None) -> None:
    """Check the host that makes a call for an attempt; None is a driver, or a plaintext peer, which has no name.

    The source of an earlier attempt may repeat what can change nothing any more.

    Raises:
        Unauthorised: It is another host than the attempt's source.
    """
    if speaker is None or speaker == record.peer:
        return
    over = record.attempt != key.attempt and (record.former_retired or record.owned_epoch != key.epoch)
    if not over:
        text = f"{speaker} is not the source of this attempt, {record.peer} is"
        raise Unauthorised("wrong-source", text, "The attempt's source, or an operator, may do it")
