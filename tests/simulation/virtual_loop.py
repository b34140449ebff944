"""An event loop on virtual time, of several simulated processes, in an order that a seed draws.

::

    ready callbacks, a queue for each process:   host-a/source  [x x x]  ---.
                                                 host-b/dest    [x]      ---+--> one drawn at a time
                                                 nobody's       [x x]    ---'
    nothing ready  --> the clock jumps to the next timer

Within a process callbacks keep the order that asyncio promises; between processes no order is promised, and every one
is possible. A process that is frozen keeps what becomes ready until it is thawed; one that was killed keeps it for
ever. Nothing here waits for real time, and there are no threads: what is given to an executor runs in its process's own
turn, a moment later.
"""

import asyncio
import contextvars
import functools
import heapq
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Final, TypeVar, TypeVarTuple, Unpack, cast

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")
_PROCESS: Final[contextvars.ContextVar["Process | None"]] = contextvars.ContextVar("process", default=None)
_STEPS_AT_ONE_TIME: Final = 50_000
START: Final = 1_000.0


class Livelock(Exception):
    """Callbacks follow each other, and no time passes."""


class Deadlock(Exception):
    """Something waits, nothing is ready and no timer runs."""


class ProcessKilled(BaseException):
    """The process ended in the middle of an operation; nothing of it runs from here on."""


class Process:
    """What is ready of one simulated process; `None` in its place stands for the world around them."""

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.alive = True
        self.frozen = False
        self.ready: Final[deque[asyncio.Handle]] = deque()
        self.at_death: Final[dict[object, Callable[[], None]]] = {}
        """Called, in order, when it is killed: what the rest of the world notices of that."""
        self.context: Final = contextvars.copy_context()
        self.context.run(_PROCESS.set, self)

    @property
    def held(self) -> bool:
        """Whether nothing of it runs."""
        return self.frozen or not self.alive

    def __repr__(self) -> str:
        return self.name


def current_process() -> Process | None:
    """Return the process whose code runs."""
    return _PROCESS.get()


class _Task(asyncio.Task[_Result]):
    """A task with a hash that does not depend on where it lies in memory: asyncio keeps tasks in sets."""

    _count = 0

    def __init__(
        self,
        coro: Coroutine[object, object, _Result],
        loop: asyncio.AbstractEventLoop,
        name: str | None,
        context: contextvars.Context | None,
    ) -> None:
        _Task._count += 1
        self._number = _Task._count
        self.process: Final = _PROCESS.get() if context is None else context.get(_PROCESS)
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """Drives simulated processes; `advanced` is called whenever the clock has jumped."""

    _stopping: bool

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random: Final = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self.steps = 0
        self.failure: BaseException | None = None
        """Ends the loop at its next turn."""
        self.advanced: Callable[[float], None] = lambda _now: None
        self._tasks: Final[list[_Task[object]]] = []
        self.open = True
        """Whether processes may be held; at the end everything runs to its own end."""
        self._now = START
        self._timers: Final[list[tuple[float, int, asyncio.TimerHandle, Process | None]]] = []
        self._timer_count = 0
        self._world: Final[deque[asyncio.Handle]] = deque()
        self._waiting: Final[list[Process]] = []
        """Processes with something ready that may run."""
        self._steps_at_this_time = 0
        self._alarms: Final[list[tuple[int, int, Callable[[], None]]]] = []
        _Task._count = 0

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def at_step(self, step: int, action: Callable[[], None]) -> None:
        """Call something between two callbacks, once so many have run."""
        heapq.heappush(self._alarms, (step, len(self._alarms), action))

    def call_soon(
        self,
        callback: Callable[[Unpack[_Arguments]], object],
        *args: *_Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """See asyncio."""
        if context is None:
            context = contextvars.copy_context()
        handle = asyncio.Handle(callback, args, self, context)
        self._enqueue(handle, context.get(_PROCESS))
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Arguments]], object],
        *args: *_Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        if context is None:
            context = contextvars.copy_context()
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, handle, context.get(_PROCESS)))
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Arguments]], object],
        *args: *_Arguments,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def create_task(  # type: ignore[override]  # typeshed's signature of a later version
        self,
        coro: Coroutine[object, object, _Result],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[_Result]:
        """See asyncio; every task is kept, so that none ends because nobody looks."""
        task = _Task(coro, self, name, context)
        self._tasks.append(cast("_Task[object]", task))
        return task

    def run_in_executor(
        self, executor: object, func: Callable[[Unpack[_Arguments]], _Result], *args: *_Arguments
    ) -> asyncio.Future[_Result]:
        """Run a blocking call in its process's own turn, a moment from now."""
        future: asyncio.Future[_Result] = self.create_future()
        self.call_later(self.random.uniform(0.0001, 0.002), self._execute, future, functools.partial(func, *args))
        return future

    def hold(self, process: Process) -> None:
        """Stop running a process that was frozen or killed."""
        if process in self._waiting:
            self._waiting.remove(process)

    def let_run(self, process: Process) -> None:
        """Run what became ready of a process meanwhile."""
        if process.ready and process not in self._waiting:
            self._waiting.append(process)

    def end(self) -> None:
        """Let every task come to its end: held ones too, all of them cancelled."""
        self.open = False
        self._steps_at_this_time = 0
        for _ in range(10):
            left = [task for task in self._tasks if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
                if task.process is not None:
                    self.let_run(task.process)
            self.run_until_complete(asyncio.wait(left, timeout=60))
        raise Livelock(f"Tasks do not end: {[task for task in self._tasks if not task.done()]}")

    def _execute(self, future: "asyncio.Future[_Result]", func: Callable[[], _Result]) -> None:
        try:
            result = func()
        except ProcessKilled:
            return
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits, as an executor does
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)

    def _enqueue(self, handle: asyncio.Handle, process: Process | None) -> None:
        if process is None:
            self._world.append(handle)
            return
        queue = process.ready
        queue.append(handle)
        if len(queue) == 1 and not (process.held and self.open):
            self._waiting.append(process)

    def _run_once(self) -> None:
        """Run callbacks, one at a time, until the loop is told to stop."""
        waiting, world, draw = self._waiting, self._world, self.random.random
        while not self._stopping:
            if self.failure is not None:
                failure, self.failure = self.failure, None
                raise failure
            while self._alarms and self._alarms[0][0] <= self.steps:
                heapq.heappop(self._alarms)[2]()
            choices = len(waiting) + bool(world)
            if not choices:
                self._advance()
                continue
            if self._steps_at_this_time > _STEPS_AT_ONE_TIME:
                raise Livelock(f"{_STEPS_AT_ONE_TIME} steps at {self._now - START:.6f} s")
            drawn = int(draw() * choices) if choices > 1 else 0
            if drawn == len(waiting):
                handle = world.popleft()
            else:
                queue = waiting[drawn].ready
                handle = queue.popleft()
                if not queue:
                    waiting[drawn] = waiting[-1]
                    waiting.pop()
            if not handle._cancelled:
                self.steps += 1
                self._steps_at_this_time += 1
                handle._run()

    def _advance(self) -> None:
        timers = self._timers
        while timers and (timers[0][2].cancelled() or (self.open and _dead(timers[0][3]))):
            heapq.heappop(timers)
        if not timers:
            raise Deadlock("Nothing is ready, and no timer runs")
        self._now = max(self._now, timers[0][0])
        self._steps_at_this_time = 0
        self.advanced(self._now)
        while timers and timers[0][0] <= self._now:
            _, _, handle, process = heapq.heappop(timers)
            if not handle.cancelled() and not (self.open and _dead(process)):
                self._enqueue(handle, process)


def _dead(process: Process | None) -> bool:
    return process is not None and not process.alive
