"""What goes to a machine and comes back over its one SSH connection: commands, files and tunnels."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import shlex
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import paramiko

from harness.errors import HostError
from harness.hosts.channel import PIECE, CommandResult, Remote, feed, tunnel

SILENCE: Final = 30.0  # seconds in which a machine has to take a command
FILES: Final = "/tmp/kvmirror"  # folder on the host


class Connection(ABC):
    """This is a machine's connection. Its methods raise HostError when the machine is not there (any more). Methods
    raise HostError when the machine is not there (any more).
    """

    name: str = "host"

    def __init__(self) -> None:
        self._client: paramiko.SSHClient | None = None
        self._kept: set[str] = set()

    @abstractmethod
    def check(self) -> None:
        """HostError when the machine has died: it says of what. Cheap: asked several times a second."""

    def _disconnect(self) -> None:
        if self._client is not None:
            with contextlib.suppress(Exception):
                self._client.close()
            self._client = None
        self._kept.clear()

    @property
    def _transport(self) -> paramiko.Transport:
        transport = self._client.get_transport() if self._client else None
        if transport is None or not transport.is_active():
            self.check()
            raise HostError(f"{self.name} is not connected: it was not started, or its SSH connection broke")
        return transport

    @contextlib.contextmanager
    def _awake(self) -> Iterator[paramiko.Transport]:
        """The connection; closed when the machine dies or is silent for SILENCE, since paramiko waits for ever."""
        transport = self._transport
        done = threading.Event()

        def watch() -> None:
            deadline = time.monotonic() + SILENCE
            while not done.wait(0.5):
                try:
                    self.check()
                    dead = time.monotonic() > deadline
                except HostError:
                    dead = True
                if dead:
                    transport.close()
                    return

        threading.Thread(target=watch, name="awake", daemon=True).start()
        try:
            yield transport
        finally:
            done.set()

    def _channel(self, command: str) -> paramiko.Channel:
        try:
            with self._awake() as transport:
                channel = transport.open_session(timeout=SILENCE)
                channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            self.check()
            raise HostError(f"{self.name} did not take the command {command[:80]!r}: {error}") from error
        return channel

    def run(
        self, command: str, *, input: bytes | None = None, timeout: float = 60.0, check: bool = False
    ) -> CommandResult:
        """A shell command is run to its end.

        Raises HostError when it does not end within ``timeout`` seconds or the machine dies meanwhile.
        Raises HostError, with ``check``, for a status other than 0.
        """
        channel = self._channel(command)
        out, err = bytearray(), bytearray()
        deadline = time.monotonic() + timeout
        feeder = threading.Thread(target=feed, args=(channel, input or b""), name="feed", daemon=True)
        feeder.start()
        channel.settimeout(0.25)
        try:
            while True:
                try:
                    data = channel.recv(PIECE)
                except TimeoutError:
                    self.check()
                    if time.monotonic() > deadline:
                        raise HostError(f"{self.name}: {command[:120]!r} did not end within {timeout:.0f} s") from None
                    data = None
                while channel.recv_stderr_ready():
                    err += channel.recv_stderr(PIECE)
                if data == b"":
                    break
                out += data or b""
            while not channel.status_event.wait(0.25):  # the status comes behind the output
                self.check()
                if not self._transport.is_active() or time.monotonic() > deadline:
                    raise HostError(f"{self.name}: {command[:120]!r} ended without a status")
            while channel.recv_stderr_ready():
                err += channel.recv_stderr(PIECE)
        except (paramiko.SSHException, EOFError) as error:
            self.check()
            raise HostError(f"{self.name}: the connection broke during {command[:120]!r}: {error}") from error
        finally:
            channel.close()
        result = CommandResult(channel.recv_exit_status() if channel.exit_status_ready() else -1, bytes(out),
                        err.decode("utf-8", "replace"))  # fmt: skip
        if check and result.status:
            self.check()
            words = (result.stderr or result.stdout).strip()[-600:]
            raise HostError(f"{self.name}: {command[:160]!r} failed with status {result.status}: {words}")
        return result

    def spawn(self, command: str) -> Remote:
        """Start a command that stays; the shell is replaced by it, so that its end is the command's."""
        return Remote(self._channel(f"exec {command}"), command)

    def feed(self, command: str, data: bytes) -> None:
        """A command is run with ``data`` on its standard input.

        The data goes compressed where that is shorter: the emulator unpacks faster than it decrypts.

        Raises HostError when it fails.
        """
        packed = gzip.compress(data, 6, mtime=0)
        if len(packed) < len(data):
            command, data = f"gzip -dc | {command}", packed
        self.run(command, input=data, timeout=120 + len(data) / 50_000, check=True)

    def put(self, data: bytes, path: str, *, mode: int = 0o644) -> None:
        """A file is written on the host."""
        quoted = shlex.quote(path)
        self.feed(f"{{ cat >{quoted} && chmod {mode:o} {quoted}; }}", data)

    def deliver(self, path: Path, *, mode: int = 0o644) -> str:
        """The path on the host of a copy of the local file, sent once: a level's modules are loaded many times."""
        there = place(path)
        if there not in self._kept:
            if not self._kept:
                self.run(f"mkdir -p {FILES}", check=True)
            self.put(path.read_bytes(), there, mode=mode)
            self._kept.add(there)
        return there

    def get(self, path: str) -> bytes:
        """A file of the host is read."""
        return self.run(f"cat {shlex.quote(path)}", timeout=300, check=True).data

    def connect(self, port: int) -> socket.socket:
        """The function gives a socket that is connected to 127.0.0.1:``port`` as the host sees it.

        Raises HostError when nobody listens.
        """
        try:
            channel = self._transport.open_channel("direct-tcpip", ("127.0.0.1", port), ("127.0.0.1", 0), timeout=20)
        except (paramiko.SSHException, OSError, EOFError) as error:
            self.check()
            raise HostError(f"{self.name}: port {port} does not answer: {error}") from error
        return tunnel(channel, channel.close)


def place(path: Path) -> str:
    """Where on a host the copy of a local file lies: its contents and its name say it."""
    return f"{FILES}/{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}-{path.name}"
