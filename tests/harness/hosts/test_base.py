"""What all hosts have in common: a machine that no longer answers is not waited for."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import paramiko
import pytest

from harness.errors import HostError
from harness.hosts import transport
from harness.hosts.base import Host
from harness.hosts.console import Warn


class Mute(paramiko.ServerInterface):
    """Lets everybody in and never answers a command."""

    def check_auth_none(self, username: str) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Event().wait(60)
        return False


class Connected(Host):
    """A host behind a connection that the test made."""

    name = "lab7"

    def __init__(self, transport: paramiko.Transport) -> None:
        super().__init__()
        self._client = paramiko.SSHClient()
        self._client._transport = transport
        self.dies_at = float("inf")

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def console_tail(self, lines: int = 25) -> str:
        return ""

    def warnings(self) -> list[Warn]:
        return []

    def check(self) -> None:
        if time.monotonic() > self.dies_at:
            raise HostError("the host hit an Oops")


@pytest.fixture
def host() -> Iterator[Connected]:
    ours, theirs = socket.socketpair()
    server = paramiko.Transport(theirs)
    server.add_server_key(paramiko.RSAKey.generate(2048))
    server.start_server(event=threading.Event(), server=Mute())
    client = paramiko.Transport(ours)
    client.start_client(timeout=20)
    client.auth_none("root")
    yield Connected(client)
    client.close()
    server.close()


def test_a_machine_that_dies_while_a_command_is_sent(host: Connected) -> None:
    host.dies_at = time.monotonic() + 0.5
    with pytest.raises(HostError, match="the host hit an Oops"):
        host.run("true")


def test_a_machine_that_is_silent(host: Connected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "SILENCE", 1.0)
    with pytest.raises(HostError, match="lab7 did not take the command 'true'"):
        host.run("true")
