"""Digests of RAM in spans of pages, for machines that send their memory themselves: what both ends hold is compared.

A span is a power of two of pages, so that there are at most `MOST_SPANS` of them, which fit into one message. Spans of
which nothing was ever touched are not read: reading would give them memory.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np

from vm_migration.transfer.digests import PageWords, digests_of_rows
from vm_migration.transfer.frames import DigestArray
from vm_migration.transfer.verified_pages import VerifyResult
from vmm.memory.quantities import PAGE_SIZE

MOST_SPANS: Final = 1 << 16
_LEAST_PAGES: Final = 16
_REPORTED_SPANS: Final = 1000
_WORDS: Final = PAGE_SIZE // 8


def span_pages(pages: int) -> int:
    """Return how many pages of a RAM of so many make a span; the last span may have fewer."""
    span = _LEAST_PAGES
    while span * MOST_SPANS < pages:
        span *= 2
    return span


def span_digests(words: PageWords, touched: Iterable[tuple[int, int]]) -> DigestArray:
    """Return the digest of each span of a RAM as it is now; `touched` are the runs of pages that hold memory."""
    pages, span = len(words), span_pages(len(words))
    whole = pages // span
    spans = words[: whole * span].reshape(whole, span * _WORDS)
    digests = np.full(-(-pages // span), _of_zeros(span), dtype=np.uint64)
    if pages % span:
        digests[whole] = _of_zeros(pages % span)
    following = 0
    for first, count in touched:
        begin, end = max(following, first // span), (first + count - 1) // span + 1
        following = max(following, end)
        digests[begin : min(end, whole)] = digests_of_rows(spans[begin : min(end, whole)])
        if begin <= whole < end:
            digests[whole] = digests_of_rows(words[whole * span :].reshape(1, -1))[0]
    return digests


def compared(here: DigestArray, stated: bytes, pages: int) -> VerifyResult:
    """Return how a RAM of so many pages compares with what was stated of it: digests, little-endian.

    A span that differs counts with all its pages, and is named by its first one; so is one of which nothing was stated.
    """
    told = np.frombuffer(stated[: len(here) * 8], dtype="<u8")
    different = np.flatnonzero(here[: len(told)] != told).tolist()
    unstated = range(len(told), len(here))
    mismatched, missing = pages_of(different, pages), pages_of(unstated, pages)
    return VerifyResult(
        pages_verified=pages - mismatched - missing,
        pages_mismatched=mismatched,
        pages_unstated=missing,
        mismatched=tuple(index * span_pages(pages) for index in (*different, *unstated)[:_REPORTED_SPANS]),
    )


def pages_of(spans: Iterable[int], pages: int) -> int:
    """Return how many pages some spans of a RAM have together."""
    span = span_pages(pages)
    return sum(min(span, pages - index * span) for index in spans)


def _of_zeros(pages: int) -> np.uint64:
    digest: np.uint64 = digests_of_rows(np.zeros((1, pages * _WORDS), dtype=np.uint64))[0]
    return digest
