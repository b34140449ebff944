"""Small damage: bytes as a program of edits, so that a test draws it cheaply and shrinks it well."""

from collections.abc import Sequence

_INTERESTING = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF, 0x22, 0x5B)
_OPERATIONS = 8
_STEP = 4
_LONGEST = 1 << 16


def edited(data: bytes, program: bytes, others: Sequence[bytes]) -> bytes:
    """Return what edits make of an input: bytes changed, cut, doubled, moved, or taken from another input."""
    result = bytearray(data)
    for start in range(0, len(program) - _STEP + 1, _STEP):
        operation, high, low, value = program[start : start + _STEP]
        # Half of the edits strike near the beginning: that is where most formats say what they are.
        place = (((high & 0x7F) << 8) | low if high & 0x80 else low) % (len(result) + 1)
        _edit(result, operation % _OPERATIONS, place, value, others)
        if len(result) > _LONGEST:
            del result[_LONGEST:]
    return bytes(result)


def _edit(result: bytearray, operation: int, place: int, value: int, others: Sequence[bytes]) -> None:
    length = value + 1
    match operation:
        case 0:
            result[place : place + 1] = bytes((value,))
        case 1:
            result[place : place + 1] = bytes((_INTERESTING[value % len(_INTERESTING)],))
        case 2:
            if place < len(result):
                result[place] ^= 1 << value % 8
        case 3:
            del result[place:]
        case 4:
            del result[place : place + length]
        case 5:
            result[place:place] = bytes((value,)) * length
        case 6:
            piece = result[place : place + length]
            result[place:place] = piece * 3
        case _:
            other = others[value % len(others)]
            result[place:] = other[place:]
