"""Several transfers at once: the first failure, or Ctrl-C, ends them all."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

_T = TypeVar("_T")
_THREADS = 3

Task = Callable[[Callable[[], None]], _T]
"""Is given a function to call often, which raises when there is no use in going on."""


class _StoppedError(Exception):
    """Another task has failed."""


def together(tasks: Sequence[Task[_T]]) -> list[_T]:
    """Run `tasks`, a few at a time, and return their results in order; raises what the first failing one raised."""
    stop = threading.Event()

    def go_on() -> None:
        if stop.is_set():
            raise _StoppedError

    with ThreadPoolExecutor(_THREADS) as pool:
        begun = [pool.submit(task, go_on) for task in tasks]
        try:
            for one in as_completed(begun):
                one.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [one.result() for one in begun]
