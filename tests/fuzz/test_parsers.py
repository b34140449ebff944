"""No parser of bytes from outside crashes, hangs, takes more memory than it may, or reads one thing from two spellings.

`make fuzz` searches on from the same corpus, guided by what of the code it reaches.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.edits import edited
from tests.fuzz.target import Target
from tests.fuzz.targets import NAMES, load

EXAMPLES = 2000
MEASURED = 11
"""One example in so many is watched for what it allocates, which takes several times as long."""
_TARGETS = {name: load(name) for name in NAMES}
_SMALL = 1024
"""Bytes; what once was found and is longer was found for its length, and is not damaged further."""


def damaged_from(target: Target) -> tuple[bytes, ...]:
    """Return what damage begins with: the seeds, and what is small of the rest."""
    seeds = tuple(target.seeds.values())
    return seeds + tuple(data for data in target.corpus() if len(data) <= _SMALL and data not in seeds)


@pytest.fixture(params=NAMES)
def target(request: pytest.FixtureRequest) -> Target:
    return _TARGETS[request.param]


@pytest.mark.parametrize("name", NAMES)
def test_damaged_input_is_refused_or_means_what_it_says(name: str) -> None:
    target = _TARGETS[name]
    corpus = damaged_from(target)

    @settings(max_examples=EXAMPLES)
    @given(st.binary(min_size=1, max_size=33))
    def damaged(program: bytes) -> None:
        data = edited(corpus[program[0] % len(corpus)], program[1:], corpus)
        if len(program) % MEASURED == 0:
            target.feed_measured(data)
        else:
            target.feed(data)

    damaged()


def test_arbitrary_bytes_are_refused_or_mean_what_they_say(target: Target) -> None:
    @settings(max_examples=100)
    @given(st.binary(max_size=300))
    def arbitrary(data: bytes) -> None:
        target.feed_measured(data)

    arbitrary()


def test_what_once_was_found_stays_mended(target: Target) -> None:
    for data in target.corpus():
        target.feed(data)
        target.feed_measured(data)


def test_the_corpus_begins_with_inputs_that_are_taken(target: Target) -> None:
    for name, seed in target.seeds.items():
        target.read(seed)
        assert (target.folder / name).read_bytes() == seed, "python -m tests.fuzz --write-seeds"
