"""Batches side by side on a processor's cores, each on one core.

Splitting every operation among the cores makes all of them wait for the slowest one, hundreds of times a
batch. Whole batches need no waiting: on two cores a classifier answers a fifth more texts a second. A batch's
result is then also the same however many cores there are.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")

# What Python does for a batch it does one thread at a time: many more would wait for one another.
_MOST = 8


def workers() -> int:
    """How many batches are computed side by side: as many as torch has threads here, or 8."""
    return min(torch.get_num_threads(), _MOST)


def in_threads(
    work: Callable[[_Item], _Found], items: Iterable[_Item], number: int | None = None
) -> Iterator[_Found]:
    """``work`` of each item, in the items' order; ``number`` at a time, which share torch's threads evenly.

    Without a number, as many at a time as there are :func:`workers`.

    What of torch's state belongs to a thread (inference mode, autocast), ``work`` has to set itself. What it
    raises is raised here; items not begun yet are left then, as where the caller stops listening.
    """
    number = number or workers()
    pool = _pool(number, max(1, torch.get_num_threads() // number))
    running: deque[Future[_Found]] = deque()
    try:
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > number:  # one waits, so that nobody else does
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()


_making = threading.Lock()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):  # threads do not survive a fork; Windows has none
    os.register_at_fork(after_in_child=_pools.clear)


def _pool(number: int, cores: int) -> ThreadPoolExecutor:
    """Threads for ``number`` batches at a time, each on so many cores."""
    with _making:
        if (number, cores) not in _pools:
            before = torch.get_num_threads()
            pool = ThreadPoolExecutor(number, "thano-batches")
            begun = threading.Barrier(number + 1)

            def begin() -> None:
                torch.get_num_threads()  # a thread's first question sets its number to everybody's
                torch.set_num_threads(cores)
                begun.wait()

            for _ in range(number):
                pool.submit(begin)
            begun.wait()
            torch.set_num_threads(before)  # what threads to come start with is what was set last
            _pools[number, cores] = pool
        return _pools[number, cores]
