"""The kinds of values that documents hold: sizes, rates, names, addresses, paths, lines; and a table of them."""

from collections.abc import Callable
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints
from pydantic_core import PydanticCustomError

from vmm.assembly.quantity_text import RATES_ALLOWED, SIZES_ALLOWED, parse_rate, parse_size

_MAX_QUANTITY: Final = 1 << 63
_MAX_LINE: Final = 4096
_NAME_ALLOWED: Final = "letters, digits and - _ . up to 63, first a letter or digit"
_ADDRESS_ALLOWED: Final = '"00:SS.F", slot SS from 01 to 1f, function F from 0 to 7'


def _quantity(parse: Callable[[str], int], allowed: str) -> BeforeValidator:
    def read(value: object) -> object:
        if isinstance(value, str):
            try:
                return parse(value)
            except ValueError as error:
                raise PydanticCustomError("quantity", "{error}", {"error": str(error)}) from None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_QUANTITY:
            raise PydanticCustomError("quantity", "Not a quantity", {"allowed": allowed})
        return value

    return BeforeValidator(read)


def _text(matches: Callable[[str], bool], problem: str, allowed: str) -> BeforeValidator:
    def read(value: object) -> object:
        if isinstance(value, str) and not matches(value):
            raise PydanticCustomError("text", "{error}", {"error": problem, "allowed": allowed})
        return value

    return BeforeValidator(read)


def _is_name(text: str) -> bool:
    plain = text.isascii() and text.replace("-", "").replace("_", "").replace(".", "").isalnum()
    return plain and text[0].isalnum() and len(text) <= 63


def _is_address(text: str) -> bool:
    try:
        bus, slot, function = text[:2], int(text[3:5], 16), text[6:]
    except ValueError:
        return False
    shape = len(text) == 7 and text[2] == ":" and text[5] == "." and text[3:5].isalnum()
    return shape and bus == "00" and 1 <= slot <= 0x1F and function in tuple("01234567")


def _is_word(text: str) -> bool:
    return 0 < len(text) <= _MAX_LINE and "\0" not in text


Size = Annotated[int, _quantity(parse_size, SIZES_ALLOWED)]
Rate = Annotated[int, _quantity(parse_rate, RATES_ALLOWED)]
Name = Annotated[str, _text(_is_name, "Not a name", _NAME_ALLOWED)]
Address = Annotated[
    str, StringConstraints(to_lower=True), _text(_is_address, "Not an address of this machine's bus", _ADDRESS_ALLOWED)
]
AbsolutePath = Annotated[
    str,
    _text(lambda text: text.startswith("/") and "\0" not in text, "Not an absolute path", "a path that begins with /"),
]
Word = Annotated[str, _text(_is_word, "Not a word of a command line", f"1 to {_MAX_LINE} characters")]


class Table(BaseModel):
    """A table of the document: nothing unknown, nothing converted silently, nothing changed later."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
