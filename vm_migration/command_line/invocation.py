"""One run of the command: the options that every command takes, and how its answer leaves.

With --json one document goes to stdout and nothing else; without, tables go to stdout. Progress and complaints go to
stderr always.
"""

import asyncio
import functools
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, ParamSpec, TextIO, TypeVar

import click
import msgspec
from rich.console import Console

from vm_migration.daemon.complaint import Complaint
from vm_migration.daemon.configuration import Configuration, load

_PIPE_WIDTH = 1000
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found: the document for --json, how to show it to a person, and how the process exits."""

    document: msgspec.Struct
    show: Callable[[Console], None]
    exit_code: int = 0
    complaint: Complaint | None = None


@dataclass(slots=True)
class Invocation:
    """The options common to all commands; filled while the command line is read."""

    json: bool = False
    config: Path | None = None
    debug: bool = False
    exit_code: int = 0
    out: Console = field(default_factory=lambda: _console(sys.stdout))
    err: Console = field(default_factory=lambda: Console(file=sys.stderr, highlight=False))

    def configuration(self, *, insecure: bool = False) -> Configuration:
        """Read the configuration.

        Raises:
            InvalidDocument: Names every wrong key.
            InvalidInput: There is no such file.
        """
        return load(self.config, os.environ, insecure=insecure)

    def finish(self, answer: Answer) -> None:
        """Print an answer."""
        if self.json:
            print_document(answer.document)
        else:
            answer.show(self.out)
        if answer.complaint is not None:
            answer.complaint.write(sys.stderr)
        self.exit_code = answer.exit_code


def _console(stream: TextIO) -> Console:
    """Return a console for answers; into a pipe nothing is wrapped, so that a line stays a line."""
    return Console(file=stream, highlight=False, width=None if stream.isatty() else _PIPE_WIDTH)


def print_document(document: msgspec.Struct) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
    sys.stdout.flush()


def print_line(document: msgspec.Struct) -> None:
    """Write one JSON document to stdout as a line, for a command that tells again and again."""
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


def common_options(command: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """Add --json, --config and --debug to a command."""
    for option in (
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            callback=_note("debug"),
            envvar="VIADUCT_DEBUG",
            help="Print tracebacks.",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_note("config"),
            envvar="VIADUCT_CONFIG",
            help="The site's viaduct.toml.",
        ),
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_note("json"),
            envvar="VIADUCT_JSON",
            help="Print one JSON document and nothing else.",
        ),
    ):
        command = option(command)
    return command


def answering(
    function: Callable[Concatenate[Invocation, _Given], Awaitable[Answer | None]],
) -> Callable[_Given, Coroutine[object, object, None]]:
    """Make a command of a coroutine that returns an answer; the command returns what is yet to be awaited.

    None is the answer of a command that has told everything already.
    """

    @common_options
    @functools.wraps(function)
    def command(*args: _Given.args, **options: _Given.kwargs) -> Coroutine[object, object, None]:
        return _finished(_current(click.get_current_context()), function, *args, **options)

    return command


async def _finished(
    invocation: Invocation,
    function: Callable[Concatenate[Invocation, _Given], Awaitable[Answer | None]],
    *args: _Given.args,
    **options: _Given.kwargs,
) -> None:
    task = asyncio.current_task()
    if task is not None:  # SIGTERM ends a command as Ctrl-C does: with everything cleaned up
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    answer = await function(invocation, *args, **options)
    if answer is not None:
        invocation.finish(answer)


def _current(context: click.Context) -> Invocation:
    return context.find_root().ensure_object(Invocation)


def _note(name: str) -> Callable[[click.Context, click.Parameter, bool | Path | None], None]:
    def callback(context: click.Context, _parameter: click.Parameter, value: bool | Path | None) -> None:
        if value:
            setattr(_current(context), name, value)

    return callback
