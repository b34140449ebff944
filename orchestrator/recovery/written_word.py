"""An operator's word in the audit log of whoever gives it: before anything is done on it, and what came of each part.

The agents write down the calls that they take. What is done to journals that were mounted here is written down only
here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.recovery.fenced_word import Planned
from orchestrator.recovery.steps import Step
from vm_migration.link.audit import FENCED, Audit, Entry, Outcome


@dataclass(frozen=True, slots=True)
class WrittenWord:
    """Whose word it is (`who`: the identity, `person`: the user and machine), and what it says."""

    audit: Audit
    who: str
    person: str
    detail: str

    def given(self, planned: Sequence[Planned]) -> None:
        """Write down what is about to be done."""
        for one in planned:
            self._write(one, one.act, "begun")

    def done(self, planned: Sequence[Planned], steps: Sequence[Step]) -> None:
        """Write down what came of it; the steps are those that were planned, in their order."""
        for one, step in zip(planned, steps, strict=True):
            self._write(one, step.error or one.act, "failed" if step.error else "done")

    def _write(self, planned: Planned, told: str, outcome: Outcome) -> None:
        pair = planned.pair
        self.audit(
            Entry(
                who=self.who,
                address=self.person,
                call=FENCED,
                machine=planned.machine,
                attempt="" if pair is None else pair.attempt,
                epoch=0 if pair is None else pair.epoch,
                term=0,
                detail=f"{self.detail}: {told} at {planned.host}",
                outcome=outcome,
            )
        )
