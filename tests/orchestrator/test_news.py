"""What changed, told to those who wait for it."""

import asyncio

from orchestrator.news import News

LONG = 10.0


async def waits(news: News, *subjects: str, seen: int | None = None) -> "asyncio.Task[None]":
    """Have somebody wait, who has begun to."""
    since = news.count if seen is None else seen
    task = asyncio.create_task(news.of(set(subjects) or None, since, LONG))
    await asyncio.sleep(0)
    return task


async def test_each_hears_of_its_own_subjects_and_who_waits_for_any_of_all() -> None:
    news = News()
    one, two, both, anything = [await waits(news, *of) for of in (["a"], ["b"], ["a", "b"], [])]
    news.tell("a")
    await asyncio.wait_for(asyncio.gather(one, both, anything), LONG)
    assert not two.done()
    news.tell("b")
    await asyncio.wait_for(two, LONG)


async def test_what_changed_before_anybody_waited_is_heard_at_once() -> None:
    news = News()
    seen = news.count
    news.tell("a")
    await asyncio.wait_for(await waits(news, "a", seen=seen), LONG)
    await asyncio.wait_for(await waits(news, seen=seen), LONG)
    later = await waits(news, "a")
    assert not later.done()
    later.cancel()
    await asyncio.wait({later})


async def test_who_has_waited_long_enough_looks_without_news() -> None:
    await asyncio.wait_for(News().of({"a"}, 0, 0.0), LONG)


async def test_nothing_is_kept_of_those_who_left() -> None:
    news = News()
    tasks = [await waits(news, f"subject-{number}", "shared") for number in range(100)]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert not news._waiting
    for number in range(10_000):
        news.tell(f"subject-{number}")
    assert len(news._last) < 5_000
