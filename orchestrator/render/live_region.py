"""A region of a terminal that is drawn anew, while a context is entered; nothing elsewhere."""

from types import TracebackType
from typing import Final, Self

from rich.console import Console, RenderableType
from rich.live import Live

_A_SECOND: Final = 8


class LiveRegion:
    """Draws where `draws` says so, and leaves nothing behind."""

    def __init__(self, console: Console, *, draws: bool) -> None:
        self._live = Live(console=console, refresh_per_second=_A_SECOND, transient=True) if draws else None

    @property
    def draws(self) -> bool:
        """Whether anything is drawn."""
        return self._live is not None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def draw(self, picture: RenderableType) -> None:
        """Put a picture in the place of the last one."""
        if self._live is not None:
            self._live.update(picture)
