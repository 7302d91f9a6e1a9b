"""Work on many items at once behind the standard `concurrent.futures.Executor`.

Any executor can stand in, a cluster's too: a pass submits module-level functions with small
arguments, a bounded number at a time, and takes the results in order.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, TypeVar

from mgen.core.errors import MgenError

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerDiedError(MgenError, RuntimeError):
    """A worker process ended without a result."""


class SerialExecutor(Executor):
    """Runs everything at once in this process: for one job, and for tests."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """Call `fn` now; the future that comes back is done."""
        future: Future[Result] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class _Pool(ProcessPoolExecutor):
    """A pool that does not wait for its workers when the coordinator is interrupted."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:  # fmt: skip
        if kind is not None:
            workers = list((self._processes or {}).values())
            self.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.terminate()
        self.shutdown(wait=True)
        return None


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def make_executor(jobs: int = 0) -> Executor:
    """An executor of `jobs` processes (0: one per core); one job runs in this process.

    Workers are spawned, not forked (threads of numeric libraries do not survive a fork), compute
    on one thread each, leave Ctrl-C to the coordinator, and end when it does, however it dies.
    """
    jobs = jobs or cores()
    if jobs == 1:
        return SerialExecutor()
    context = multiprocessing.get_context("spawn")
    return _Pool(jobs, mp_context=context, initializer=_start_worker)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's worker would otherwise wait for ever for a coordinator that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def in_order(
    executor: Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    window: int | None = None,
) -> Generator[tuple[Item, Future[Result]]]:
    """Apply `function` to every item; yields each with its finished future, in the items' order.

    No more than `window` items are ahead of the one that is yielded, so a corpus is never queued
    whole; by default two per core, or one where the executor is serial. `items` is drawn as it is
    needed. Closing the generator cancels what has not begun.

    Raises
    ------
    WorkerDiedError
        If a worker process was killed.
    """
    if window is None:
        window = 1 if isinstance(executor, SerialExecutor) else 2 * cores()
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    source: Iterator[Item] = iter(items)
    try:
        while True:
            while len(waiting) < window:
                try:
                    item = next(source)
                except StopIteration:
                    break
                waiting.append((item, _submit(executor, function, item)))
            if not waiting:
                return
            item, future = waiting[0]
            if isinstance(future.exception(), BrokenProcessPool):  # waits here
                raise WorkerDiedError(
                    "a worker process was killed (out of memory?); use fewer --jobs"
                )
            waiting.popleft()
            yield item, future
    finally:
        for _, future in waiting:
            future.cancel()


def _submit(executor: Executor, function: Callable[[Item], Result], item: Item) -> Future[Result]:
    """Submit with Ctrl-C held back: the first call starts workers, who inherit the mask."""
    with contextlib.ExitStack() as stack:
        if hasattr(signal, "pthread_sigmask") and not isinstance(executor, SerialExecutor):
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        return executor.submit(function, item)
