"""Batches made ahead in a thread while the last one is trained on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Batch = TypeVar("Batch")

_LOOK_S = 0.1
"""How soon a thread that waits for room in the queue sees that it is to end."""


class Feed(Generic[Batch]):
    """Calls `make(step)` for first <= step < last in a thread, at most `ahead` of the taker.

    Attributes
    ----------
    waited_s
        Seconds that the taker has waited so far.
    """

    def __init__(self, make: Callable[[int], Batch], first: int, last: int, ahead: int = 2) -> None:
        self.waited_s = 0.0
        self._make, self._steps = make, range(first, last)
        self._queue: queue.Queue[Batch | _Failure] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    def take(self) -> Batch:
        """The next batch.

        Raises
        ------
        BaseException
            Whatever `make` raised for it.
        """
        began = time.perf_counter()
        got = self._queue.get()
        self.waited_s += time.perf_counter() - began
        if isinstance(got, _Failure):
            raise got.error
        return got

    def close(self) -> None:
        """End the thread, after the batch that it is making."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        for step in self._steps:
            if self._stop.is_set():
                return
            made: Batch | _Failure
            try:
                made = self._make(step)
            except BaseException as error:
                made = _Failure(error)
            while not self._stop.is_set():
                try:
                    self._queue.put(made, timeout=_LOOK_S)
                    break
                except queue.Full:
                    continue
            if isinstance(made, _Failure):
                return


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error
