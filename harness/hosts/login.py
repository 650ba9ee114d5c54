"""An SSH connection, opened: whose key is taken for the machine's, and what went wrong where there is none."""

from __future__ import annotations

import base64
import logging
import socket
from pathlib import Path
from typing import Final

import paramiko

from harness.errors import HostError, InputError

# paramiko logs a connection that fails with a traceback of its own; the errors here say it in a sentence.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


KEEPALIVE: Final = 15  # seconds between two signs of life over a connection that has nothing to say
LOSS: Final = 60  # seconds in which what is sent has to be acknowledged


class Unreachable(HostError):
    """Nobody answers there, or what answers does not speak SSH (yet): it is not reached."""


def open_client(
    address: str,
    port: int,
    user: str,
    *,
    key: Path | None,
    host_key: str | None,
    timeout: float,
    known_hosts: Path | None = None,
) -> paramiko.SSHClient:
    """The function gives an SSH connection whose host key was checked. ``host_key`` (``ssh-ed25519 AAAA...``) is the
    only one accepted; None takes ``known_hosts``, else the user's own.

    Raises HostError for a wrong key or a refused log-in.
    Raises Unreachable when nobody is there within ``timeout`` seconds.
    Raises InputError when ``host_key`` is no key, or ``known_hosts`` cannot be read.
    """
    client = paramiko.SSHClient()
    where = f"{user}@{address}:{port}"
    if host_key is None:
        try:
            client.load_system_host_keys(str(known_hosts) if known_hosts else None)
        except OSError as error:
            raise InputError(f"known_hosts {known_hosts}: {error.strerror}; name a file that can be read") from error
    else:
        kind, data = host_key.split()[:2]
        name = address if port == 22 else f"[{address}]:{port}"
        client.get_host_keys().add(name, kind, paramiko.PKey.from_type_string(kind, _decode(data)))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())

    def transport(sock: socket.socket, **_: object) -> paramiko.Transport:
        # Curve25519 costs the emulator a tenth of what the post-quantum exchanges do; the line is local.
        made = paramiko.Transport(sock)
        # Each message is waited for: held back for more to come, it costs 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.get_security_options().kex = [
            k for k in made.get_security_options().kex if "curve25519" in k and "mlkem" not in k
        ]
        return made

    try:
        client.connect(
            address, port, user,
            key_filename=str(key) if key else None, look_for_keys=key is None, allow_agent=key is None,
            timeout=timeout, banner_timeout=timeout, auth_timeout=timeout,
            transport_factory=transport if host_key is not None else None,  # type: ignore[arg-type]
        )  # fmt: skip
    except paramiko.BadHostKeyException as error:
        client.close()
        raise HostError(
            f"{where} shows another host key than the one that is known: {error}; is it the right machine?"
        ) from error
    except paramiko.AuthenticationException as error:
        client.close()
        raise HostError(f"{where} refused the log-in: {error}; is our key in its authorized_keys?") from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        client.close()
        unknown = "known_hosts" in str(error)  # the machine answers, and paramiko has only these words for it
        raise (HostError if unknown else Unreachable)(
            f"no SSH connection to {where}: {error or type(error).__name__}; does a server listen there, and is the "
            "host's key known (ssh-keyscan shows it, known_hosts takes it)?"
        ) from error
    return client


def notice_loss(transport: paramiko.Transport) -> None:
    """A connection is made to end within LOSS seconds of its network's loss, if something was sent in them."""
    transport.set_keepalive(KEEPALIVE)
    if isinstance(transport.sock, socket.socket):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOSS * 1000)


def _decode(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:
        raise InputError(f"host key {data[:30]!r} is not base64 ({error}); give it as in a known_hosts file") from error
