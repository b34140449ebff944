"""One scenario file, several scenarios: cases that differ from what the file says in a few keys. Pure.

::

    name = "large-memory"            [[case]]                            two scenarios:
    title = "..."                    name = "8TiB"                       large-memory-8TiB
    [machine] ...                    machine.memory.size = "8TiB"        large-memory-9TiB
    [expect] ...                     [[case]]
                                     name = "9TiB"
                                     machine.memory.size = "9TiB"
                                     expect = { outcome = "blocked" }

A case's tables are laid over the file's, key by key; of a list of tables each is laid over the one in its place.
"""

from collections.abc import Iterator, Mapping

Document = Mapping[str, object]


def cases_of(document: Document) -> Iterator[tuple[str, Document]]:
    """Yield each case's key in the file and its own document; without cases, the document itself under no key.

    A `case` that is no list of tables, or an empty one, is left in the document, of which it is a fault.
    """
    base = {key: value for key, value in document.items() if key != "case"}
    cases = document.get("case")
    if not isinstance(cases, list) or not _are_tables(cases):
        yield "", document
        return
    for index, case in enumerate(cases):
        name = f"{base.get('name')}-{case.get('name')}"
        yield f"case[{index}]", {**_laid_over(base, case), "name": name}


def _laid_over(base: Document, case: Document) -> dict[str, object]:
    result = dict(base)
    for key, value in case.items():
        under = result.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            result[key] = _laid_over(under, value)
        elif isinstance(under, list) and isinstance(value, list) and _are_tables(value):
            result[key] = _each_laid_over(under, value)
        else:
            result[key] = value
    return result


def _each_laid_over(under: list[object], over: list[object]) -> list[object]:
    both = [
        _laid_over(one, other) if isinstance(one, Mapping) and isinstance(other, Mapping) else other
        for one, other in zip(under, over, strict=False)
    ]
    return [*both, *under[len(over) :], *over[len(under) :]]


def _are_tables(values: list[object]) -> bool:
    return bool(values) and all(isinstance(value, Mapping) for value in values)
