"""What a driver works with: the store, the agents, the site's hooks, a clock and chance."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.agents import Agents
from orchestrator.attempt import Attempt, Notice, new_attempt_id
from orchestrator.claims import Claims
from orchestrator.known_hosts import KnownHosts
from orchestrator.policy import MigrationPolicy
from orchestrator.queueing import ONE_EACH_WAY, Slots
from orchestrator.store.store import Store


class Hooks(Protocol):
    """What a site has run around a migration."""

    async def before_prepare(self, attempt: Attempt) -> None:
        """Run what must succeed; raises MigrationError to end the attempt."""

    async def after_abort(self, attempt: Attempt) -> tuple[Notice, ...]:
        """Run what follows an aborted attempt; what failed is returned."""


def ignore(_what: object) -> None:
    """Observe nothing."""


def as_asked(attempt: Attempt) -> MigrationPolicy:
    """Return an attempt's policy as somebody asked for it."""
    return attempt.policy


async def at_once(_attempt: Attempt) -> None:
    """Wait for nothing."""


def beside_all_others(_attempt: Attempt) -> AbstractContextManager[asyncio.Event]:
    """Give what is set already."""
    may = asyncio.Event()
    may.set()
    return contextlib.nullcontext(may)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a driver works with.

    `clock` returns seconds since 1970, `patience` is in seconds, `chance` returns a number between 0 and 1; `terms` are
    those under which an attempt begins; in `preparing` it is prepared, once what that gives is set; `turn` is waited
    for between Prepare and Start. `slots` are as configured, and so is the `bandwidth` of a host's migration network,
    in bytes a second each way; a host that has none shares none. Who drives many attempts has their `claims` and the
    `known` hosts for all of them.
    """

    store: Store
    agents: Agents
    hooks: Hooks
    driver: str
    clock: Callable[[], float]
    observe: Callable[[Attempt], None] = ignore
    observe_evacuation: Callable[[str], None] = ignore
    terms: Callable[[Attempt], MigrationPolicy] = as_asked
    preparing: Callable[[Attempt], AbstractContextManager[asyncio.Event]] = beside_all_others
    turn: Callable[[Attempt], Coroutine[object, object, None]] = at_once
    slots: Slots = ONE_EACH_WAY
    bandwidth: Mapping[str, int] = field(default_factory=dict)
    patience: float = 60.0
    chance: Callable[[], float] = random.SystemRandom().random
    draw_identifier: Callable[[], str] = new_attempt_id
    claims: Claims | None = None
    known: KnownHosts | None = None
