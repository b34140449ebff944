import pytest

from vmm.vfio.logging_ranges import Span, logging_ranges

GIB = 1 << 30


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], ()),
        ([Span(0, 2 * GIB)], ((0, 2 * GIB),)),
        ([Span(0, 2 * GIB), Span(4 * GIB, 6 * GIB)], ((0, 2 * GIB), (4 * GIB, 6 * GIB))),
        ([Span(GIB, GIB), Span(3 * GIB, 4096)], ((GIB, 2 * GIB + 4096),)),
        ([Span(0, 4 * GIB)], ((0, 4 * GIB),)),
        ([Span(0, 4 * GIB + 4096)], ((0, 4 * GIB + 4096),)),
        (
            [Span(0, GIB), Span(4 * GIB, GIB), Span(1 << 45, 4096, device_memory=True)],
            ((0, GIB), (4 * GIB, GIB), (1 << 45, 4096)),
        ),
        ([Span(3 * GIB, 4096, device_memory=True)], ((3 * GIB, 4096),)),
    ],
)
def test_low_and_high_ram_and_the_high_hole(spans: list[Span], expected: tuple[tuple[int, int], ...]) -> None:
    assert logging_ranges(spans) == expected
