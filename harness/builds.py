"""What has to be built before a host boots, independent parts side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from harness import bochs, kernel, proc, toolbox
from harness.cache import Cache

T = TypeVar("T")
JOIN_EVERY: Final = 0.2  # seconds; a main thread that only waits must see Ctrl-C


@dataclass(frozen=True, slots=True)
class Built:
    """The base kernel and the emulator's binary."""

    kernel: kernel.BaseKernel
    bochs: Path


def side_by_side(jobs: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Run ``jobs`` in a thread each; their results by name.

    The first failure, or Ctrl-C, ends the programs of all of them, and is raised once all have stopped.
    """
    group = proc.Group()
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
            proc.breathe()
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


def build_all(cache: Cache, *, linux: Path | None = None, emulator: Path | None = None, mended: bool = True) -> Built:
    """The base kernel (of ``linux``, if given) and the emulator (the user's, or ours with or without mends).

    Exceptions as ``kernel.base`` and ``bochs.build`` raise them, and BuildError when programs are missing.
    """
    toolbox.require()
    own = bochs.users(emulator) if emulator is not None else None
    jobs: dict[str, Callable[[], kernel.BaseKernel | Path]] = {
        "kernel": lambda: kernel.base(cache, linux),
        "bochs": lambda: own or bochs.build(cache, mended),
    }
    made = side_by_side(jobs)
    base, binary = made["kernel"], made["bochs"]
    assert isinstance(base, kernel.BaseKernel)
    assert isinstance(binary, Path)
    return Built(base, binary)
