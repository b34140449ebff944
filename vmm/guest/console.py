"""What a person types at the guest's console.

An action is taken down when it is typed and carried out by later steps of the guest, one after another for each
device; `GuestReport.busy_actions` counts those that are not finished.
"""

from enum import StrEnum


class GuestAction(StrEnum):
    """What the guest is told to do; all but `quiet`, `suspend` and `wake` concern one device."""

    TAKE = "take"
    """The user-level driver takes the device: default domain -> blocked -> its own paging domain."""
    GIVE_BACK = "give-back"
    """It gives the device back: paging -> blocked, with its mappings still in the tables -> default domain."""
    BLOCK = "block"
    """The kernel blocks the device as it is: it has stopped writing, and nothing is unmapped or looked at yet."""
    UNBLOCK = "unblock"
    """The kernel brings the device back to the domain that it was in; its driver goes on."""
    CHURN = "churn"
    """Buffers are mapped and unmapped beside the workload, as `guest.churn` says."""
    CALM = "calm"
    """No more of that: what it had mapped is unmapped."""
    QUIET = "quiet"
    """Everything comes to rest, for good: when it is finished, nothing in the guest writes RAM of its own accord."""
    SUSPEND = "suspend"
    """The system suspends to RAM: every driver finishes and disables its device, and vCPUs rest until it wakes."""
    WAKE = "wake"
    """It wakes: drivers set their devices up anew, which may be others of their kind by now, and vCPUs go on."""


class ConsoleRefused(Exception):
    """The guest cannot do what was typed: no such device, or one that it cannot switch. Nothing was taken down."""
