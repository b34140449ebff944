"""Pseudo-random numbers and orders without state: functions of a seed and a counter, over whole arrays.

A guest that draws them needs no more than its counter to go on exactly where it was, on another host too.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

_GAMMA: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)
_ROUNDS: Final = 3


def mixed(values: Words) -> Words:
    """Return the SplitMix64 finaliser of each value, a bijection of 64-bit words in which every bit matters."""
    result = values + np.uint64(_GAMMA)
    result ^= result >> np.uint64(30)
    result *= _FIRST
    result ^= result >> np.uint64(27)
    result *= _SECOND
    result ^= result >> np.uint64(31)
    return result


def mixed_one(value: int) -> int:
    """Return `mixed` of a single value."""
    result = (value + _GAMMA) & _MASK
    result = ((result ^ (result >> 30)) * int(_FIRST)) & _MASK
    result = ((result ^ (result >> 27)) * int(_SECOND)) & _MASK
    return result ^ (result >> 31)


def fractions(values: Words) -> npt.NDArray[np.float64]:
    """Return a number in [0, 1) for each value."""
    return (mixed(values) >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Permutation:
    """A pseudo-random order of 0 .. size - 1.

    Each round (add a key, multiply by an odd number, fold the high half onto the low) is a bijection of k-bit words,
    2^k being the power of two that holds the size. A result outside the size is put through again until it lies
    inside (cycle walking), which keeps the whole a bijection; fewer than two passes are needed on average.
    """

    __slots__ = ("_keys", "_mask", "_multipliers", "_shift", "size")

    def __init__(self, size: int, seed: int) -> None:
        if size < 1:
            raise ValueError(f"No order of {size} things")
        bits = max(1, (size - 1).bit_length())
        numbers = [mixed_one(mixed_one(seed) + index) for index in range(2 * _ROUNDS)]
        self.size: Final = size
        self._mask: Final = np.uint64((1 << bits) - 1)
        self._shift: Final = np.uint64((bits + 1) // 2)
        self._keys: Final = [np.uint64(number & ((1 << bits) - 1)) for number in numbers[:_ROUNDS]]
        self._multipliers: Final = [np.uint64(number & ((1 << bits) - 1) | 1) for number in numbers[_ROUNDS:]]

    def places(self, positions: Words) -> Words:
        """Return what stands at each position, which must be below the size."""
        result = self._once(positions)
        outside = np.flatnonzero(result >= np.uint64(self.size))
        while len(outside):
            walked = self._once(result[outside])
            result[outside] = walked
            outside = outside[walked >= np.uint64(self.size)]
        return result

    def _once(self, values: Words) -> Words:
        result = values.copy()
        for key, multiplier in zip(self._keys, self._multipliers, strict=True):
            result += key
            result *= multiplier
            result &= self._mask
            result ^= result >> self._shift
        return result
