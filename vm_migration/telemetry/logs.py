"""Structured logs: one JSON document a line on stderr.

::

    {"time": "2026-01-02T03:04:05.678901Z", "level": "info", "process": "viaduct-dest-agent", "event": "prepared",
     "machine": "...", "attempt": "...", "epoch": 3, ...}

`bound` adds machine, attempt and epoch to everything logged inside; it stands where a call enters
(vm_migration.link.boundary) and where an attempt's task begins. A field whose name says that it is a secret is never
written, nor are bytes, which is what secrets, tickets and pages are.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final, Protocol, TextIO, cast


class _WithoutRich:
    """Finds nothing of `rich` that is not loaded yet, for as long as it is asked first."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        del path, target
        if name.partition(".")[0] == "rich":
            raise ModuleNotFoundError(name)
        return None


# With rich, structlog could colour tracebacks, which no log here has; importing it is a seventh of a daemon's start.
# A command has loaded the console of rich, but neither its tracebacks nor what those parse code with.
sys.meta_path.insert(0, _WithoutRich)
try:
    import structlog
finally:
    sys.meta_path.remove(_WithoutRich)

_SECRET_WORDS: Final = frozenset({"secret", "ticket", "password", "token", "key", "credentials"})
_PUBLIC: Final = frozenset({"secret_hash"})
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
LEVELS: Final = tuple(_LEVELS)


class Logger(Protocol):
    """What a module logs with: an event in a few fixed words, and facts as fields."""

    def debug(self, event: str, **fields: object) -> None:
        """Say what helps to find a fault."""

    def info(self, event: str, **fields: object) -> None:
        """Say what happened as it should."""

    def warning(self, event: str, **fields: object) -> None:
        """Say what somebody should look at; work goes on."""

    def error(self, event: str, **fields: object) -> None:
        """Say what failed; `exc_info` may carry the exception."""


def configure(process: str, level: str = "info", stream: TextIO | None = None, *, traces: bool = False) -> None:
    """Send the logs of this process to a stream, stderr by default; what libraries log from warnings on, too.

    `traces` writes whole tracebacks; otherwise an exception is its type, text and place.
    """
    output = stream if stream is not None else sys.stderr
    render = structlog.processors.dict_tracebacks if traces else _place_of_exception
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _named(process),
            render,
            _without_secrets,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(output),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Forward)]:
        root.removeHandler(handler)
    root.addHandler(_Forward(logging.WARNING))


def get(module: str) -> Logger:
    """Return a module's logger. It follows a later `configure`."""
    return cast("Logger", structlog.get_logger(module=module))


@contextlib.contextmanager
def bound(**fields: str | int) -> Iterator[None]:
    """Add fields to everything that this task and those it starts log inside."""
    with structlog.contextvars.bound_contextvars(**fields):
        yield


def bind(*, machine: str, attempt: str | None, epoch: int) -> None:
    """Have this task, and those it starts, log of an attempt from now on; epoch 0 is yet to be drawn."""
    structlog.contextvars.bind_contextvars(machine=machine, attempt=attempt or "", epoch=epoch)


class _Forward(logging.Handler):
    """What libraries log through the standard library, in our form."""

    def emit(self, record: logging.LogRecord) -> None:
        log = get(record.name)
        write = log.error if record.levelno >= logging.ERROR else log.warning
        write(record.getMessage(), exc_info=record.exc_info[1] if record.exc_info else None)


_Event = MutableMapping[str, object]


def _named(process: str) -> structlog.types.Processor:
    def add(_logger: object, _method: str, event: _Event) -> Mapping[str, object]:
        event["process"] = process
        return event

    return cast("structlog.types.Processor", add)


def _without_secrets(_logger: object, _method: str, event: _Event) -> _Event:
    for name, value in event.items():
        secret = name not in _PUBLIC and not _SECRET_WORDS.isdisjoint(name.lower().split("_"))
        if secret or isinstance(value, bytes | bytearray | memoryview):
            event[name] = "withheld"
    return event


def _place_of_exception(_logger: object, _method: str, event: _Event) -> _Event:
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
        event.update(error=type(error).__name__, text=str(error), place=place)
    return event
