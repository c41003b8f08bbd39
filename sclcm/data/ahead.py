"""`map_ahead`: work on the next pieces while the consumer is busy with the last."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, n_threads: int, n_ahead: int
) -> Generator[Result]:
    """Apply a function to items in threads, and yield the results in the order of the items.

    Parameters
    ----------
    function
        What is done to each item; where it fails, its exception is raised here, in its turn.
    items
        Taken one after another in the thread of the consumer, no more than `n_ahead` before they are needed.
    n_threads
        Threads that work at a time.
    n_ahead
        Results that wait at most, which bounds the memory they take.

    Yields
    ------
    Results. Once the consumer closes the iterator, or anything fails, no thread is left at work.
    """
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="sclcm")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > n_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
