"""What an attempt will take where pre-copy alone does not converge: with what its profile takes from the vCPUs.

Profiles differ in nothing else, so where pre-copy converges all of them take the same. Where it stalls, the throttle
rises by steps (vm_migration.transfer.throttle), the first one once nothing was gained for the profile's patience, each
further one after a window of the stall (vm_migration.transfer.stall). A throttled vCPU does the same in a longer time;
a device does not. What the holding of devices (`device_maximum`) would gain nobody can tell before it was tried: it is
left out, and the outcome may be better. The least step at which the forecast converges is the one that is waited for;
where none does, nothing that the profile allows is enough, and the attempt ends with its timeout.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from vm_migration.transfer.convergence import ConvergencePolicy, OnTimeout, StandstillCosts
from vm_migration.transfer.prediction import Inputs, Prediction, predicted
from vm_migration.transfer.profiles import Profile
from vm_migration.transfer.ranges import Range
from vm_migration.transfer.stall import DECAY, LEAST_WINDOW_MS
from vm_migration.transfer.throttle import is_worth_it, raised

_MANY: Final = 1 << 20


def predicted_under(profile: Profile, inputs: Inputs, policy: ConvergencePolicy, costs: StandstillCosts) -> Prediction:
    """Return what an attempt will take under a policy, with what the profile allows beside."""
    plain = predicted(inputs, policy, costs)
    if plain.converges:
        return plain
    for percent, wait_ms in presses(profile):
        if not is_worth_it(_MANY, round(_MANY * (1 - inputs.cpu_share))):
            break
        held = predicted(throttled(inputs, percent), policy, costs)
        if held.converges and held.total_ms.likely + wait_ms.likely < policy.timeout_ms:
            return _once_throttled(plain, held, wait_ms, policy)
    return _never(plain, policy)


def presses(profile: Profile) -> Iterator[tuple[int, Range]]:
    """Yield each step of a profile's throttle, in percent, and how long nothing has been gained by then.

    A step that helps ends the stall, and the next one waits for the whole patience again; one that does not is followed
    by the next after half of the window before.
    """
    percent, step, wait_ms, window_ms = 0, 0, profile.patience_ms, profile.patience_ms
    while (following := raised(percent, profile.throttle_maximum)) > percent:
        percent, step = following, step + 1
        yield percent, Range(wait_ms, wait_ms, max(wait_ms, step * profile.patience_ms))
        wait_ms += window_ms
        window_ms = max(LEAST_WINDOW_MS, window_ms * DECAY)


def throttled(inputs: Inputs, percent: int) -> Inputs:
    """Return what is known of a machine of whose vCPUs' time so much is taken; below 100 percent."""
    return replace(inputs, dirtying=inputs.dirtying.slowed(1 - inputs.cpu_share * percent / 100))


def _once_throttled(plain: Prediction, held: Prediction, wait_ms: Range, policy: ConvergencePolicy) -> Prediction:
    """Return what comes of waiting at the stall, and then of the throttled machine."""
    a_round_ms = max(1.0, plain.downtime_ms.likely)
    waited = Range(0.0, wait_ms.likely / a_round_ms, 2 * wait_ms.high / a_round_ms)
    total_ms, rounds = _sum(held.total_ms, wait_ms), _sum(held.rounds, waited)
    latest = total_ms.high if held.surely else max(total_ms.high, policy.timeout_ms)
    first = plain if plain.possibly else held
    return replace(
        held,
        rounds=Range(min(first.rounds.low, rounds.low), round(rounds.likely), max(rounds.high, round(rounds.likely))),
        total_ms=Range(min(first.total_ms.low, total_ms.low), total_ms.likely, latest),
        downtime_ms=Range(
            min(first.downtime_ms.low, held.downtime_ms.low), held.downtime_ms.likely, held.downtime_ms.high
        ),
        surely=held.surely and latest < policy.timeout_ms,
    )


def _never(plain: Prediction, policy: ConvergencePolicy) -> Prediction:
    """Return what comes of an attempt that its timeout ends: forced then, where the policy says so."""
    if policy.on_timeout is not OnTimeout.FORCE:
        return plain
    total_ms = max(plain.total_ms.likely, policy.timeout_ms + plain.downtime_ms.likely)
    latest = max(plain.total_ms.high, policy.timeout_ms + plain.downtime_ms.high)
    return replace(plain, total_ms=Range(min(plain.total_ms.low, total_ms), total_ms, max(latest, total_ms)))


def _sum(one: Range, other: Range) -> Range:
    return Range(one.low + other.low, one.likely + other.likely, one.high + other.high)
