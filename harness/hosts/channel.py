"""A command on a host: what it wrote, and its channel as a socket of ours."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import paramiko

PIECE: Final = 32768  # bytes of one read from a channel


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The command has ended: exit status (minus one: it ended without one) and what it wrote."""

    status: int
    data: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        """This is its standard output as text."""
        return self.data.decode("utf-8", "replace")


class Remote:
    """The command is run on the host until it ends or ``stop`` is called."""

    def __init__(self, channel: paramiko.Channel, command: str) -> None:
        self._channel = channel
        self.command = command
        self._out = bytearray()
        self._err = bytearray()
        self._lock = threading.Lock()
        self._tunnelled = False

    def _drain(self) -> None:
        with self._lock:
            while not self._tunnelled and self._channel.recv_ready():
                self._out += self._channel.recv(PIECE)
            while self._channel.recv_stderr_ready():
                self._err += self._channel.recv_stderr(PIECE)

    @property
    def status(self) -> int | None:
        """Its exit status once it ended (minus one: with the connection, or by a signal), else None."""
        self._drain()
        if self._channel.exit_status_ready():
            self._drain()
            return self._channel.recv_exit_status()
        return -1 if self._channel.closed else None

    def output(self) -> str:
        """All it wrote to standard output so far."""
        self._drain()
        return self._out.decode("utf-8", "replace")

    def errors(self) -> str:
        """All it wrote to standard error so far."""
        self._drain()
        return self._err.decode("utf-8", "replace")

    def socket(self) -> socket.socket:
        """A socket that is its standard input and output; what it writes is no longer in ``output``."""
        self._tunnelled = True
        # Closing it is the end of the command's input, not of the command: its status is still to come.
        return tunnel(self._channel, self._channel.shutdown_write)

    def stop(self) -> None:
        """Close its channel; the command ends when it next writes, or is ended by its caller."""
        self._channel.close()


def tunnel(channel: paramiko.Channel, end: Callable[[], None]) -> socket.socket:
    """The local end of a channel; ``end`` is called when it is closed."""
    ours, theirs = socket.socketpair()
    for pump in (lambda: _to_channel(theirs, channel, end), lambda: _from_channel(theirs, channel)):
        threading.Thread(target=pump, name="tunnel", daemon=True).start()
    return ours


def feed(channel: paramiko.Channel, data: bytes) -> None:
    """The data is a command's standard input, which ends behind it. A command that does not read it all is no error. A
    command that does not read it all is no error.
    """
    at = 0
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        while at < len(data):
            with contextlib.suppress(TimeoutError):  # the channel's timeout is the reader's
                at += channel.send(data[at : at + PIECE])
        channel.shutdown_write()


def _to_channel(local: socket.socket, channel: paramiko.Channel, end: Callable[[], None]) -> None:
    """Bytes from the local end to the host, until one of them closes."""
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        while data := local.recv(PIECE):
            channel.sendall(data)
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        end()


def _from_channel(end: socket.socket, channel: paramiko.Channel) -> None:
    """Bytes from the host to the local end, until one of them closes."""
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        while data := channel.recv(PIECE):
            end.sendall(data)
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
