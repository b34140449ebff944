"""Which connection commands a machine: the one that attached last, as long as the fence admits it."""

from dataclasses import dataclass

from vmm.process.fence import Fence, FencedOff


@dataclass(slots=True)
class Controller:
    """What one connection attached as; None only looks."""

    epoch: int | None = None
    number: int | None = None
    attachment: int = 0
    """Counts attaches: a controller that came back on a new connection cuts its old one off too."""
    descriptor: int = -1
    """Of its connection."""


class Attachments:
    """Counts who attached."""

    def __init__(self) -> None:
        self._last = 0

    def note(self, controller: Controller, epoch: int, number: int) -> None:
        """Note an attach that the fence has accepted."""
        self._last += 1
        controller.epoch, controller.number, controller.attachment = epoch, number, self._last

    def commands(self, controller: Controller) -> bool:
        """Tell whether nobody attached after a connection that did."""
        return controller.attachment > 0 and controller.attachment == self._last

    def require(self, controller: Controller, fence: Fence) -> None:
        """Check that a connection commands.

        Raises:
            FencedOff: It has not attached, or somebody did since.
        """
        if controller.epoch is None or controller.number is None:
            raise FencedOff("This connection has not attached")
        if not fence.admits(controller.epoch, controller.number):
            raise FencedOff(f"Controller {controller.number} was cut off by {fence.controller}")
        if not self.commands(controller):
            raise FencedOff(f"Controller {controller.number} has come back on another connection")
