"""What is proven of a RAM that is being filled: of each page one bit, that it has the digest that was stated last.

A page is verified only when its bytes, read back from RAM after they were written, have that digest; any later write
takes that away. A page whose bytes have another is different until it is written or compared again.
"""

from dataclasses import dataclass
from typing import Final

from vm_migration.transfer.digests import PageWords, digests_of_pages
from vm_migration.transfer.frames import DigestArray
from vmm.memory.dirty_bitmap import DirtyBitmap
from vmm.memory.dirty_bitmap import Pages as PageIndexes

_REPORTED_PAGES: Final = 1000


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """How the destination's RAM compares with the source's at the pause."""

    pages_verified: int
    pages_mismatched: int
    """Pages whose digest differs from the stated one."""
    pages_unstated: int
    """Pages for which the source stated no digest since they were last written here."""
    mismatched: tuple[int, ...]
    """The first thousand pages that are not verified, for either reason, as indexes in the block."""

    @property
    def whole(self) -> bool:
        """Whether every page was compared and is equal."""
        return not self.pages_mismatched and not self.pages_unstated


class VerifiedPages:
    """The two sets, of one RAM with one page a row."""

    __slots__ = ("_different", "_verified", "_words")

    def __init__(self, words: PageWords) -> None:
        self._words = words
        self._verified = DirtyBitmap(len(words))
        self._different = DirtyBitmap(len(words))

    def unproven(self) -> DirtyBitmap:
        """Return every page that is not proven equal: it differs, or no digest was stated for it as it is now."""
        return DirtyBitmap.full(len(self._words)) - self._verified

    def result(self) -> VerifyResult:
        """Return the comparison of every page."""
        unproven = self.unproven()
        different = self._different.count()
        return VerifyResult(
            pages_verified=self._verified.count(),
            pages_mismatched=different,
            pages_unstated=unproven.count() - different,
            mismatched=_first_pages(self._different if different else unproven),
        )

    def forget(self) -> None:
        """Begin anew: nothing is proven."""
        self._verified.clear()
        self._different.clear()

    def written(self, pages: PageIndexes) -> None:
        """Take back what was known of pages."""
        self._verified.clear_pages(pages)
        self._different.clear_pages(pages)

    def written_run(self, first: int, count: int, *, proven: bool) -> None:
        """Take back what was known of a run, or note that it was just read back as what was stated."""
        if proven:
            self._verified.set_run(first, count)
        else:
            self._verified.clear_run(first, count)
        self._different.clear_run(first, count)

    def prove(self, pages: PageIndexes) -> None:
        """Note pages that were just read back as what was stated of them."""
        self._verified.set_pages(pages)
        self._different.clear_pages(pages)

    def compare(self, pages: PageIndexes, stated: DigestArray) -> None:
        """Read pages back, and note which of them have the digests that were stated."""
        equal = digests_of_pages(self._words, pages) == stated
        self.prove(pages[equal])
        self._verified.clear_pages(pages[~equal])
        self._different.set_pages(pages[~equal])


def _first_pages(bitmap: DirtyBitmap) -> tuple[int, ...]:
    pages: list[int] = []
    for first, count in bitmap.runs():
        pages.extend(range(first, first + min(count, _REPORTED_PAGES - len(pages))))
        if len(pages) == _REPORTED_PAGES:
            break
    return tuple(pages)
