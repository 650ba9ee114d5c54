"""Hands: children running Python of ours that share the work of a command, one request and one answer at a time.

A hand is `python -m MODULE FD`. Over the socket FD it reads lines of JSON, first its setting, then requests, and
answers each with a line; it ends with its stdin or when the command closes the socket.
"""

from __future__ import annotations

import json
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import InfraError, KvmirrorError
from harness.process import programs


class Hand:
    """One child; ``log`` takes what it writes on its standard error. A context manager."""

    def __init__(self, module: str, setting: object, log: Path) -> None:
        self._log = log
        self._what = module
        ours, theirs = socket.socketpair()
        with theirs:
            log.unlink(missing_ok=True)
            argv = [sys.executable, "-m", module, str(theirs.fileno())]
            self._process = programs.spawn(argv, log=log, pass_fds=(theirs.fileno(),))
        self._socket = ours
        self._lines = ours.makefile("rw", encoding="utf-8", newline="\n")
        self._tell(setting)

    def _tell(self, data: object) -> None:
        self._lines.write(json.dumps(data) + "\n")
        self._lines.flush()

    def ask(self, request: object) -> Any:
        """The function gives the child's answer.

        Raises InfraError when it could not give one, or ended.
        """
        try:
            self._tell(request)
            line = self._lines.readline()
        except OSError:
            line = ""
        if not line:
            raise InfraError(f"{self._what} ended at {request}; it said:\n{programs.tail_of(self._log)}")
        said = json.loads(line)
        if "error" in said:
            raise InfraError(said["error"])
        return said["answer"]

    def __enter__(self) -> Hand:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()
        self._socket.close()


def shared(
    module: str, setting: object, requests: Sequence[object], jobs: int, log: Callable[[int], Path]
) -> Iterator[tuple[int, Any]]:
    """The function gives the answers to ``requests`` as they come, each with its request's number, from at most
    ``jobs`` children.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(requests)):
        waiting.put(number)
    done: queue.SimpleQueue[tuple[int, Any] | BaseException] = queue.SimpleQueue()
    group = programs.Group()

    def work(hand_number: int) -> None:
        try:
            with group.mine(), Hand(module, setting, log(hand_number)) as hand:
                while True:
                    try:
                        number = waiting.get_nowait()
                    except queue.Empty:
                        return
                    done.put((number, hand.ask(requests[number])))
        except BaseException as error:
            done.put(error)

    count = min(jobs, len(requests))
    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    try:
        for _ in requests:
            said = done.get()
            if isinstance(said, BaseException):
                raise said
            yield said
    finally:
        group.cancel()
        for thread in threads:
            thread.join()


def serve(make: Callable[[Any], Callable[[Any], object]]) -> None:
    """The child's side: ``make`` takes the setting and gives the function that answers a request."""
    programs.interruptible()
    with socket.socket(fileno=int(sys.argv[1])) as ours, ours.makefile("rw", encoding="utf-8", newline="\n") as lines:
        answer = make(json.loads(lines.readline()))
        for line in lines:
            try:
                said: dict[str, object] = {"answer": answer(json.loads(line))}
            except KvmirrorError as error:
                said = {"error": str(error)}
            lines.write(json.dumps(said) + "\n")
            lines.flush()
