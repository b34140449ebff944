import pytest

from source_agent.retaken import retaken
from vm_migration.handover.journal_errors import JournalMoved


async def test_an_operation_is_begun_anew_while_the_journal_is_taken() -> None:
    tries: list[int] = []

    async def operation() -> str:
        tries.append(len(tries))
        if len(tries) < 3:
            raise JournalMoved("a machine")
        return "done"

    assert await retaken(operation) == "done"
    assert tries == [0, 1, 2]


async def test_a_journal_that_is_taken_for_ever_is_told() -> None:
    tries: list[int] = []

    async def operation() -> None:
        tries.append(len(tries))
        raise JournalMoved("a machine")

    with pytest.raises(JournalMoved):
        await retaken(operation)
    assert len(tries) == 4


async def test_another_failure_is_not_repeated() -> None:
    async def operation() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - a bare one stands for anything else
        await retaken(operation)
