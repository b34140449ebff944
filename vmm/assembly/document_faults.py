"""What is wrong with a document that a person wrote: all of it at once, with file, key and allowed values.

::

    InvalidDocument    the document cannot be used; `faults` says why, one entry a key
"""

import re
import tomllib
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

MAX_DOCUMENT: Final = 1 << 20
"""Bytes of a document."""
MAX_DEPTH: Final = 24
"""Tables and lists in each other."""
_PART: Final = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+"""
_DEEP_KEY: Final = re.compile(rf"(?<![\w-])(?:{_PART}){{{MAX_DEPTH},}}")
"""tomllib takes memory by the square of a dotted key's parts."""
_EXPECTED_TYPE = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "dict_type": "a table",
}
_BOUNDS = {
    "ge": "at least",
    "gt": "above",
    "le": "at most",
    "lt": "below",
    "min_length": "length at least",
    "max_length": "length at most",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where, what, and what would be right (empty where that cannot be listed)."""

    file: str
    key: str
    problem: str
    allowed: str

    def __str__(self) -> str:
        place = f"{self.key}: " if self.key else ""
        return f"{place}{self.problem}" + (f" (allowed: {self.allowed})" if self.allowed else "")


class InvalidDocument(Exception):
    """A document cannot be used. Nothing was done with any part of it."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults: tuple[Fault, ...] = tuple(faults)
        super().__init__("\n".join(_lines(self.faults)))


def read_toml(path: Path) -> dict[str, object]:
    """Read a TOML file.

    Raises:
        InvalidDocument: The file cannot be read, is not TOML, or is larger or deeper than any that a person writes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DOCUMENT + 1)
    except OSError as error:
        raise InvalidDocument([Fault(str(path), "", f"Cannot be read: {error.strerror}", "")]) from None
    return parse_toml(data, str(path))


def parse_toml(data: bytes, file: str) -> dict[str, object]:
    """Read TOML; `file` is the name that its faults carry.

    Raises:
        InvalidDocument: It is not TOML, or larger or deeper than any that a person writes.
    """
    if len(data) > MAX_DOCUMENT:
        raise InvalidDocument([Fault(file, "", "Too large", f"at most {MAX_DOCUMENT} bytes")])
    try:
        text = data.decode()
        if _DEEP_KEY.search(text):
            raise InvalidDocument([_too_deep(file)])
        document: dict[str, object] = tomllib.loads(text)
    except ValueError as error:  # TOML's own kind, text that is none, and numbers that Python does not read
        raise InvalidDocument([Fault(file, "", f"Not TOML: {error}", "")]) from None
    except RecursionError:
        raise InvalidDocument([_too_deep(file)]) from None
    if _is_deep(document):
        raise InvalidDocument([_too_deep(file)])
    return document


def _too_deep(file: str) -> Fault:
    return Fault(file, "", "Tables or lists lie too deep in each other", f"at most {MAX_DEPTH} deep")


def _is_deep(document: object) -> bool:
    level: list[object] = [document]
    for _ in range(MAX_DEPTH + 1):
        inner = [value for value in level if isinstance(value, dict | list)]
        if not inner:
            return False
        level = [each for value in inner for each in (value.values() if isinstance(value, dict) else value)]
    return True


def faults_of(error: ValidationError, file: str, model: type[BaseModel] | None = None) -> tuple[Fault, ...]:
    """Return what pydantic found, in the document's words.

    With the model, an unknown key is answered with the keys that its table has.
    """
    return tuple(_fault(details, file, model) for details in error.errors(include_url=False))


def _fault(details: ErrorDetails, file: str, model: type[BaseModel] | None) -> Fault:
    key = dotted(details["loc"])
    kind = details["type"]
    if kind == "missing":
        return Fault(file, key, "Required key is missing", "")
    if kind == "extra_forbidden":
        return Fault(file, key, "Unknown key", ", ".join(_keys_at(model, details["loc"][:-1])))
    if kind in _EXPECTED_TYPE:
        return Fault(file, key, f"Wrong type: {_shown(details['input'])}", _EXPECTED_TYPE[kind])
    context = details.get("ctx", {})
    if kind in {"literal_error", "enum"}:
        return Fault(file, key, f"Unknown value {_shown(details['input'])}", str(context.get("expected", "")))
    bounds = [f"{words} {context[name]}" for name, words in _BOUNDS.items() if name in context]
    if bounds:
        return Fault(file, key, f"Out of range: {_shown(details['input'])}", ", ".join(bounds))
    problem = str(context["error"]) if "error" in context else details["msg"]
    return Fault(file, key, problem, str(context.get("allowed", context.get("pattern", ""))))


def dotted(location: Sequence[int | str]) -> str:
    """Return a key as a person writes it: `device[0].address`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number without end"  # which Python refuses to write out
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(model: type[BaseModel] | None, location: Sequence[int | str]) -> list[str]:
    for part in location:
        if model is None:
            return []
        if isinstance(part, str) and part in model.model_fields:  # else it is a key that whoever wrote it chose
            model = _model_in(model.model_fields[part].annotation)
    return [] if model is None else list(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        return annotation
    if get_origin(annotation) in {tuple, list, dict, Union, types.UnionType}:
        return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
    return None


def _lines(faults: Sequence[Fault]) -> list[str]:
    if len(faults) == 1:
        return [f"{faults[0].file}: {faults[0]}"]
    lines = []
    for file in dict.fromkeys(fault.file for fault in faults):
        found = [fault for fault in faults if fault.file == file]
        lines.append(f"{file}: {len(found)} fault{'s' if len(found) > 1 else ''}")
        lines.extend(f"  {fault}" for fault in found)
    return lines
