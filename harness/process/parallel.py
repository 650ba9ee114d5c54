"""Independent builds side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from harness.process import programs

T = TypeVar("T")
JOIN_EVERY: Final = 0.2  # seconds; a main thread that only waits must see Ctrl-C


def side_by_side(jobs: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """The ``jobs`` run in a thread each; the function gives their results by name.

    The first failure, or Ctrl-C, ends the programs of all of them, and is raised once all have stopped.
    """
    group = programs.Group()
    results: dict[str, T] = {}
    failures: list[BaseException] = []
    lock = threading.Lock()

    def work(name: str, job: Callable[[], T]) -> None:
        try:
            with group.mine():
                results[name] = job()
        except BaseException as error:
            with lock:
                failures.append(error)

    threads = [threading.Thread(target=work, args=item, name=item[0]) for item in jobs.items()]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if failures:
                break
            programs.breathe()
            for thread in threads:
                thread.join(JOIN_EVERY)
    finally:
        if any(thread.is_alive() for thread in threads):
            group.cancel()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if failures:
        raise failures[0]
    return results
