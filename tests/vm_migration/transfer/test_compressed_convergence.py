"""Rounds whose pages were compressed: the decision looks at the pages that came across, not at the wire."""

from dataclasses import replace

from vm_migration.transfer.convergence import RoundMeasurement, rate_dropped, trusted_rate

PLAIN = RoundMeasurement(0, 25_000, 25_000, 0, 25_000 * 4096 + 6000, 1000.0, 5000)
COMPRESSED = replace(PLAIN, wire_bytes=PLAIN.wire_bytes // 4, compressed_pages=25_000)


def test_pages_that_were_compressed_count_as_the_pages_they_are() -> None:
    assert COMPRESSED.carried_bytes == 25_000 * 4096
    assert trusted_rate([COMPRESSED]) == 25_000 * 4096
    assert PLAIN.carried_bytes == PLAIN.wire_bytes


def test_a_codec_is_not_taken_for_a_link_that_has_dropped() -> None:
    assert not rate_dropped([PLAIN, PLAIN, COMPRESSED])
    assert rate_dropped([PLAIN, PLAIN, replace(COMPRESSED, ms=4000.0)])


def test_pages_that_shrink_less_than_those_before_are_no_drop_of_the_link() -> None:
    quick = replace(COMPRESSED, ms=250.0)
    assert not rate_dropped([quick, quick, PLAIN])


def test_a_few_compressed_pages_are_no_sample_of_the_link() -> None:
    few = replace(COMPRESSED, sent_pages=100, compressed_pages=100, wire_bytes=100_000, ms=5.0)
    assert not few.is_sample
    assert replace(few, sent_pages=2000).is_sample
