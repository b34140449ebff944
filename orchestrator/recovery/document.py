"""What came of a recovery -> `viaduct.recover.v1`. Pure."""

from orchestrator.documents.recovery import RecoverDocument, StepDocument, UnresolvedDocument
from orchestrator.recovery.steps import Outcome


def recover_document(fenced: str | None, outcome: Outcome) -> RecoverDocument:
    """Return the document; `fenced` is the host that the operator vouched for."""
    steps = tuple(
        StepDocument(one.machine, one.name, one.host, one.action, one.message, one.done, one.error or None)
        for one in outcome.steps
    )
    unresolved = tuple(UnresolvedDocument(one.machine, one.name, one.reason, one.hint) for one in outcome.unresolved)
    return RecoverDocument("viaduct.recover.v1", fenced, steps, unresolved, outcome.unheard)
