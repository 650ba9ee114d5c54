"""QEMU's monitor, synchronously: qemu.qmp's client in an event loop of its own thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from qemu.qmp import EventListener, QMPClient, QMPError
from qemu.qmp.qmp_client import ExecuteError

from harness.errors import GuestError

T = TypeVar("T")
Command = tuple[str, Mapping[str, object] | None]  # its name and arguments
COMMAND_TIMEOUT: Final = 60.0  # seconds; the emulator is slow, not silent


@dataclass(frozen=True, slots=True)
class QmpEvent:
    """The record is of one QMP event: its name and data."""

    name: str
    data: Mapping[str, Any]


class Monitor:
    """This is a negotiated QMP session over a connected socket.

    Raises GuestError when QEMU refuses a command or is gone.
    """

    def __init__(
        self, sock: socket.socket, *, timeout: float = COMMAND_TIMEOUT, alive: Callable[[], None] = lambda: None
    ) -> None:
        self.alive = alive  # asked while QEMU is silent; it raises when there is no use in waiting
        self.events: queue.SimpleQueue[QmpEvent] = queue.SimpleQueue()
        self.greeting: Mapping[str, Any] = {}
        self._loop = asyncio.new_event_loop()
        # What breaks here is told by the GuestError of whoever waits; asyncio would print it a second time.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        self._client = QMPClient("l1")
        self._client.logger.setLevel(logging.CRITICAL)
        self._collector: asyncio.Task[None] | None = None
        try:
            self._wait("the greeting", self._open(sock), timeout)
        except BaseException:
            sock.close()
            self.close()
            raise

    async def _open(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        listener = EventListener()
        self._client.register_listener(listener)
        await self._client.connect(sock)
        greeting = self._client.greeting
        if greeting is not None:
            self.greeting = greeting._asdict()
        self._collector = asyncio.create_task(self._collect(listener))

    async def _collect(self, listener: EventListener) -> None:
        async for message in listener:
            data = message.get("data", {})
            self.events.put(QmpEvent(str(message["event"]), data if isinstance(data, dict) else {}))

    def _wait(self, what: str, work: Coroutine[Any, Any, T], timeout: float) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        deadline = time.monotonic() + timeout
        try:
            while not concurrent.futures.wait((future,), timeout=0.5).done:
                self.alive()
                if time.monotonic() > deadline:
                    raise GuestError(f"QEMU did not answer {what} within {timeout:.0f} s: QEMU or its host hangs")
            return future.result()
        except ExecuteError as error:
            raise GuestError(f"QEMU refused {what}: {error}") from error
        except (QMPError, OSError, EOFError, concurrent.futures.CancelledError) as error:
            raise GuestError(f"QEMU went away during {what}: {error or type(error).__name__}") from error
        finally:
            future.cancel()

    def command(
        self, name: str, arguments: Mapping[str, object] | None = None, *, timeout: float = COMMAND_TIMEOUT
    ) -> Any:
        """A QMP command is executed; the function gives its return value.

        Raises GuestError, with QEMU's own words, when it is refused.
        """
        return self.commands(((name, arguments),), timeout=timeout)[0]

    def commands(self, asked: Sequence[Command], *, timeout: float = COMMAND_TIMEOUT) -> list[Any]:
        """Several at once: QEMU executes them in order, and the way there and back is waited for once."""

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(self._client.execute(name, arguments) for name, arguments in asked))

        return self._wait(" and ".join(name for name, _ in asked), all_of_them(), timeout)

    @property
    def connected(self) -> bool:
        """The session still stands: True."""
        return self._client.runstate.name == "RUNNING"

    def close(self) -> None:
        """End the session and its thread; QEMU is not asked anything."""
        if self._loop.is_closed():
            return

        async def shut() -> None:
            with contextlib.suppress(BaseException):
                await self._client.disconnect()
            if self._collector is not None:
                self._collector.cancel()
                with contextlib.suppress(BaseException):
                    await self._collector

        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(shut(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        if not self._thread.is_alive():
            self._loop.close()
