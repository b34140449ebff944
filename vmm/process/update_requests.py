"""What a machine process is asked when its machine is to go on in another process or program (docs/update.md).

::

    OfferUpdate, RehearseUpdate              the other knows that it could have the machine
    OfferUpdate, HandOver ... Run there      the other has it
    ReplaceImage                             another program has it, in this process
    LeaveSuspended ... Run elsewhere         nobody has it meanwhile: it waits in files
"""

from vmm.process.request import Request
from vmm.update.blockers import Mode


class JudgeUpdate(Request, frozen=True, tag=True, kw_only=True):
    """Ask what keeps the machine from being handed to another process of this host -> Judged."""

    mode: Mode = "transfer"


class OfferUpdate(Request, frozen=True, tag=True, kw_only=True):
    """Tell the process that waits at a path what there is of this machine, and pass it its descriptors -> Done.

    The guest runs on; the other assembles itself meanwhile.
    """

    path: str


class RehearseUpdate(Request, frozen=True, tag=True, kw_only=True):
    """Have the process that it was offered load where the machine stands at this moment, and take nothing -> Done.

    That one was started to rehearse, and ends. The guest stands still for as long as loading takes, and goes on;
    devices never stop. Refused, that process cannot have the machine.
    """

    patience: float = 2.0
    """Seconds that the other may take."""


class HandOver(Request, frozen=True, tag=True, kw_only=True):
    """Stop vCPUs, and let the process that it was offered to have the machine; devices go on -> Paused.

    The answer comes when the other has taken over what there is. It runs nothing before it is told to, and this one
    has the machine again by Run or StayPaused. Refused, this one goes on as before.
    """

    patience: float = 10.0
    """Seconds that the other may take; the guest stands still meanwhile."""


class ReplaceImage(Request, frozen=True, tag=True, kw_only=True):
    """Stop vCPUs, and run another program in this process, which goes on with the machine; devices go on -> Replaced.

    The answer comes from the new image, on the connection on which it was asked; every other one is closed. Refused,
    by whichever image, this one goes on as before. Whoever asks has had a process with that program rehearse
    (RehearseUpdate) before: what it finds wrong is found while the guest has a process to run in.
    """

    command: tuple[str, ...]
    """The program and what it is told before anything that is told here."""


class LeaveSuspended(Request, frozen=True, tag=True, kw_only=True):
    """Leave a machine whose guest is suspended in files, its RAM's and one at a path -> Paused.

    A process that is started with that path goes on with it, on this boot of the host or, where the RAM's file is still
    there, on a later one. This one has the machine again by Run or StayPaused, as long as none did.
    """

    path: str


AnyUpdateRequest = JudgeUpdate | OfferUpdate | RehearseUpdate | HandOver | ReplaceImage | LeaveSuspended
