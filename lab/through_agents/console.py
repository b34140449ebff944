"""The guest's console of a machine process: what a person could type there, and what the guest says of itself."""

import asyncio
from pathlib import Path
from typing import Final

from vfio_host.interface.channel import Channel, ChannelError, connect
from vm_migration.errors import AttemptFailed, InvalidInput
from vm_migration.machine.run_directory import RunDirectory
from vmm.guest.console import GuestAction
from vmm.process import control
from vmm.process.control import AnyReply, AnyRequest, Description, GuestFigures, Refusal

_DEADLINE: Final = 10.0
_DONE_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.01


class Console:
    """One machine's; each question is a connection of its own, which cuts nobody off."""

    def __init__(self, run_directory: Path, machine: str) -> None:
        self._path: Final = RunDirectory(run_directory).of_text(machine).path / control.CONTROL_SOCKET

    async def type(self, action: str, device: str | None) -> None:
        """Tell the guest to do something; it does it in its next steps.

        Raises:
            InvalidInput: The guest cannot do it.
            AttemptFailed: The machine does not answer.
        """
        reply = await self._ask(control.GuestCommand(action=GuestAction(action), device=device or ""))
        if isinstance(reply, Refusal):
            raise InvalidInput("guest-refuses", f"Guest refuses to {action}: {reply.reason}", "Correct the action")

    async def look(self) -> GuestFigures:
        """Return what the guest says of itself.

        Raises:
            AttemptFailed: The machine does not answer.
        """
        reply = await self._ask(control.Describe())
        if not isinstance(reply, Description):
            raise AttemptFailed("no-answer", f"Machine at {self._path} answered {reply!r}", "Run it again with --debug")
        return reply.guest

    async def until_done(self) -> None:
        """Wait until the guest has done everything that it was told.

        Raises:
            AttemptFailed: It did not in time.
        """
        try:
            async with asyncio.timeout(_DONE_SECONDS):
                while (await self.look()).busy_actions:  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            text = f"The guest at {self._path} did not do what it was told in {_DONE_SECONDS:.0f} s"
            raise AttemptFailed("not-done", text, "") from None

    async def _ask(self, request: AnyRequest) -> AnyReply:
        try:
            reply = await asyncio.to_thread(_exchange, self._path, request)
        except ChannelError as error:
            text = f"Machine at {self._path} does not answer: {error}"
            raise AttemptFailed("no-answer", text, "Run it again with --debug") from error
        return reply


def _exchange(path: Path, request: AnyRequest) -> AnyReply:
    channel: Channel = connect(path, _DEADLINE)
    try:
        channel.send(control.encode(request))
        body, _ = channel.receive()
        return control.reply_decoder.decode(body)
    finally:
        channel.close()
