"""The machine process's own fence: who may command it, and at which epochs it will never run again.

Pure; `vmm.process.server` keeps one. Source: the handover design, "The machine process keeps a fence of its own".
"""

from dataclasses import dataclass, replace


class FencedOff(Exception):
    """The command comes from a controller that was cut off, or would run the machine at a released epoch."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Numbers only grow."""

    epoch: int = 0
    controller: int = 0
    released: int = -1

    def attach(self, epoch: int, controller: int) -> "Fence":
        """Accept a controller that is not older than the present one; older ones are cut off from here on.

        Raises:
            FencedOff: A newer controller has attached already.
        """
        if epoch < self.epoch or controller < self.controller:
            raise FencedOff(
                f"Controller {controller} at epoch {epoch} is older than {self.controller} at epoch {self.epoch}"
            )
        return replace(self, epoch=epoch, controller=controller)

    def admits(self, epoch: int, controller: int) -> bool:
        """Tell whether an attached controller still commands."""
        return epoch == self.epoch and controller == self.controller

    def release(self, epoch: int) -> "Fence":
        """Give up running at an epoch and all below, for ever."""
        return replace(self, released=max(self.released, epoch))

    def require_run(self, epoch: int) -> None:
        """Check that the machine may run at an epoch.

        Raises:
            FencedOff: It was released.
        """
        if epoch <= self.released:
            raise FencedOff(f"Machine was released at epoch {self.released} and does not run at {epoch}")
