"""What the model of the handover is asked: bounds, rules that are taken away, properties, and what must come of it.

docs/protocol/model.md says in words what each run is about.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Bounds = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Property:
    """What must hold: its name in the model, and in words."""

    name: str
    words: str


PROPERTIES: Final = (
    Property("never_two_running", "never two running"),
    Property("never_on_missed_writes", "nobody runs on memory that misses a write"),
    Property("never_freed_the_last", "no whole image freed but for another, or by a rule that says lost"),
    Property("never_contradictory", "no pair of journals that the table calls impossible"),
    Property("never_an_old_driver", "a driver that was taken over from changes nothing"),
    Property("ends_as_the_table_says", "once healed, exactly one runs, or it is lost, or the operator's"),
    Property("counts_in_bounds", "the model's own counters suffice"),
    Property("can_be_seen", "reached"),
    Property("goes_on_for_ever", "every run comes to an end"),
)
"""In the order of the model's own list, which counts from 1; the last is the search for cycles', can_be_seen a wish."""
TWO_RUNNING: Final = 1 << 1
IMPOSSIBLE_PAIRS: Final = 1 << 4
ALL: Final = (1 << len(PROPERTIES)) - 2
HARM: Final = ALL & ~IMPOSSIBLE_PAIRS
"""An impossible pair harms nobody yet: a run without a rule goes on to what comes of it."""


@dataclass(frozen=True, slots=True)
class Run:
    """One search: what is in bounds, which rules are taken away, and whether an error must come of that."""

    name: str
    bounds: Bounds
    without: tuple[str, ...] = ()
    falls: bool = False
    watch: int = ALL
    """Properties that are checked, a bit each."""
    build: tuple[str, ...] = ("-DSAFETY",)
    """How the checker is compiled: an option beginning with -DTHIRD is spin's, the others are gcc's."""
    witness: int = 0
    """A state that must be reached, by the model's own number."""


def within(**bounds: int) -> Bounds:
    """Bounds for two attempts and what else is named: see `world` in the model."""
    return {"ATTEMPTS": 2, **{name.upper(): count for name, count in bounds.items()}}


_FAULTS: Final = within(deaths=1, restarts=1, freezes=1)
_OPERATOR: Final = within(vouchers=2, deaths=1)

CYCLES: Final = ("-DNP",)
THREE_ATTEMPTS: Final = ("-DSAFETY", "-DTHIRD_ATTEMPT")

WHOLE: Final = (
    Run("faults", within(deaths=2, restarts=2, freezes=1)),
    Run("drivers", within(deaths=1, freezes=1, takeovers=1)),
    Run("operator", within(deaths=1, freezes=1, vouchers=1)),
    Run("operator-twice", _OPERATOR),
    Run("cycles", within(deaths=1, restarts=1), build=CYCLES),
)
"""The protocol as it is: no error may be found."""


def _reached(number: int, what: str, **bounds: int) -> Run:
    return Run(f"reaches {what}", within(**bounds), falls=True, watch=0, witness=number)


REACHED: Final = (
    _reached(1, "back on the first host"),
    _reached(2, "a second destination after a first try"),
    _reached(3, "reclaimed and running", deaths=1),
    _reached(4, "handed over from a source whose process is gone", deaths=1),
    _reached(5, "two READY copies of two attempts"),
    _reached(6, "a frozen source that still commands", freezes=1),
    _reached(7, "a frozen destination that still commands", freezes=1),
    _reached(8, "lost on both sides", deaths=2),
    _reached(9, "taken at the source", deaths=1, vouchers=1),
    _reached(10, "taken at the destination", vouchers=1),
    _reached(11, "written off", deaths=2, vouchers=1),
    _reached(12, "a second driver heard by both", takeovers=1),
)
"""What must be able to happen, so that nothing holds only because nothing moves."""


def _without(*rules: str, bounds: Bounds = _FAULTS, watch: int = HARM) -> Run:
    return Run("no " + ", no ".join(rules), bounds, rules, falls=True, watch=watch)


MUTATIONS: Final = (
    _without("aborted-first"),
    _without("controller-fence"),
    _without("compare-and-append", watch=TWO_RUNNING),
    _without("secret-after-released"),
    _without("secret-bound", "pause-match"),
    _without("activating-first"),
    _without("image-kept"),
    _without("attempt-match", "epoch-match"),
    _without("attempt-match", "epoch-burnt"),
    _without("discard-on-proof"),
    _without("term", bounds=within(takeovers=1)),
    _without("term-at-source-first", bounds=within(takeovers=1)),
    _without("run-state-confirmed"),
    _without("run-state-confirmed", "run-state-journalled"),
    _without("process-at-aborted"),
    _without("lost-only-gone"),
    _without("arrival-lost-only-gone"),
    _without("missing-is-unreachable"),
    _without("whole-kept"),
    _without("epoch-burnt"),
    _without("stopped-first"),
    _without("stopped-asks"),
    _without("reclaimed-on-lost", watch=TWO_RUNNING),
    _without("lost-by-looking"),
    _without("instance-named"),
    _without("one-attempt"),
    _without("ready-first"),
    _without("discarded-final"),
    Run("cycles, no discarded-final", within(deaths=1), ("discarded-final",), falls=True, watch=0, build=CYCLES),
    _without("controller-fence", "own-refusal", watch=TWO_RUNNING),
    _without("controller-fence", "process-released-first", watch=TWO_RUNNING),
    _without("aborted-first", "process-at-released", "process-released-first", watch=TWO_RUNNING),
    _without("vouched-off", bounds=within(vouchers=1), watch=TWO_RUNNING),
    _without("former-retired", "taken-newest", bounds=within(deaths=1, vouchers=1), watch=TWO_RUNNING),
    _without("taken-newest", bounds=within(vouchers=1), watch=TWO_RUNNING),
    _without("taken-told-to-all", bounds=_OPERATOR),
    _without("dead-copy-yields", bounds=_OPERATOR),
)
"""Each without a rule, or without one and the one that backs it up: an error must be found."""


def _second(*rules: str, bounds: Bounds = _FAULTS, watch: int = HARM) -> Run:
    return Run("only no " + ", no ".join(rules), bounds, rules, watch=watch)


SECOND_LINES: Final = (
    _second("secret-bound"),
    _second("pause-match"),
    _second("attempt-match"),
    _second("epoch-match"),
    _second("run-state-journalled"),
    _second("own-refusal"),
    _second("process-released-first"),
    _second("process-at-released"),
    _second("former-retired", bounds=within(deaths=1, freezes=1, vouchers=1)),
    _second("controller-fence", watch=TWO_RUNNING),
    _second("aborted-first", "process-at-released", watch=TWO_RUNNING),
    _second("aborted-first", "process-released-first", watch=TWO_RUNNING),
)
"""What the model alone does not need: another rule keeps the watched property."""

LONG: Final = (
    Run("everything", within(deaths=1, restarts=1, freezes=1, vouchers=1, takeovers=1)),
    Run("more-faults", within(deaths=3, restarts=3, freezes=2)),
    Run("three-attempts", within(attempts=3, deaths=1, freezes=1), build=THREE_ATTEMPTS),
    *SECOND_LINES,
)
