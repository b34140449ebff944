"""Hosts in maintenance, and what else a choice among hosts has to know: nobody chooses one, somebody may name one.

The functions that take a store read or write it, and block meanwhile.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from orchestrator.store.entries import Entries
from orchestrator.store.store import Store
from vm_migration.errors import Stale

_BELOW: Final = "maintenance/"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which hosts may not be chosen, and why, and how many machines are on their way to each, and away from it."""

    excluded: Mapping[str, str]
    taking: Mapping[str, int]
    sending: Mapping[str, int] = field(default_factory=dict)


def choice_now(store: Store, hosts: Collection[str], among: Collection[str] = ()) -> Choice:
    """Return what to know of a choice among all hosts, or `among` those that somebody named."""
    if among:
        excluded = {host: f"{host} is not among {', '.join(among)}" for host in hosts if host not in among}
    else:
        excluded = reasons(in_maintenance(store.entries))
    rows = store.open_rows()
    return Choice(excluded, Counter(one.destination for one in rows), Counter(one.source for one in rows))


def reasons(hosts: Iterable[str]) -> dict[str, str]:
    """Return why hosts in maintenance are not chosen, for people."""
    return {host: f"{host} is in maintenance" for host in hosts}


def in_maintenance(entries: Entries) -> frozenset[str]:
    """Return the hosts in maintenance."""
    return frozenset(entry.key.removeprefix(_BELOW) for entry in entries.below(_BELOW))


def set_maintenance(entries: Entries, host: str, *, on: bool) -> bool:
    """Put a host into maintenance, or take it out; say whether that changed anything."""
    key = f"{_BELOW}{host}"
    entry = entries.get(key)
    if (entry is not None) == on:
        return False
    try:
        if entry is None:
            entries.put(key, "on", version=0)
        else:
            entries.delete(key, version=entry.version)
    except Stale:  # somebody else did the same
        return False
    return True
