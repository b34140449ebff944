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
_TARGETS = {name: load(name) for name in NAMES}
_CORPORA = {name: target.corpus() for name, target in _TARGETS.items()}


@pytest.fixture(params=NAMES)
def target(request: pytest.FixtureRequest) -> Target:
    return _TARGETS[request.param]


@pytest.mark.parametrize("name", NAMES)
def test_damaged_input_is_refused_or_means_what_it_says(name: str) -> None:
    target, corpus = _TARGETS[name], _CORPORA[name]
    for data in corpus:
        target.feed(data)  # what is made once, at first use, is not counted
    numbers = st.integers(0, len(corpus) - 1)

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(numbers, st.binary(max_size=32))
    def damaged(number: int, program: bytes) -> None:
        target.feed_measured(edited(corpus[number], program, corpus))

    damaged()


def test_arbitrary_bytes_are_refused_or_mean_what_they_say(target: Target) -> None:
    target.feed(b"")

    @settings(max_examples=100, deadline=None)
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
