"""A machine that can run KVM, and how it is reached: one SSH connection for commands, files and tunnels.

``Host`` is what the rest of the tool knows. Subclasses say how the machine comes up (``_power_on``) and goes down.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import logging
import shlex
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

import paramiko

from harness.errors import HostError, InputError
from harness.hosts.console import Warn

SILENCE: Final = 30.0  # seconds in which a machine has to take a command
PIECE: Final = 32768  # bytes of one read from a channel
FILES: Final = "/tmp/kvmirror"  # folder on the host
# paramiko logs a connection that fails with a traceback of its own; the errors here say it in a sentence.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


class ModuleFiles(Protocol):
    """What ``load`` takes (``harness.build.modules.Modules``): irqbypass is None where the kernel has it built in."""

    @property
    def irqbypass(self) -> Path | None: ...
    @property
    def kvm(self) -> Path: ...
    @property
    def kvm_intel(self) -> Path: ...


@dataclass(frozen=True, slots=True)
class Parameters:
    """Module parameters. ``chosen`` are those of the series that is asked: module, name and value of each."""

    chosen: tuple[tuple[str, str, str], ...] = ()
    ept: bool = True
    eptad: bool = True
    nx_huge_pages: bool = False
    shadow_vmcs: bool = True

    @property
    def kvm(self) -> str:
        """kvm.ko's."""
        return self._with("kvm", f"nx_huge_pages={'force' if self.nx_huge_pages else 'off'}")

    @property
    def kvm_intel(self) -> str:
        """kvm-intel.ko's. Without APICv: the emulator's VM entry wants a page-aligned posted-interrupt descriptor."""
        shadow = "" if self.shadow_vmcs else " enable_shadow_vmcs=0"
        return self._with("kvm_intel", f"nested=1 enable_apicv=0 ept={int(self.ept)} eptad={int(self.eptad)}{shadow}")

    def _with(self, module: str, words: str) -> str:
        """``words`` and what was chosen for ``module``."""
        return " ".join([words, *(f"{name}={value}" for at, name, value in self.chosen if at == module)])


@dataclass(frozen=True, slots=True)
class CommandResult:
    """A command that ended: exit status (minus one: it ended without one) and what it wrote."""

    status: int
    data: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        """Standard output as text."""
        return self.data.decode("utf-8", "replace")


class Remote:
    """A command that runs on the host until it ends or ``stop`` is called."""

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
        return _tunnel(self._channel, self._channel.shutdown_write)

    def stop(self) -> None:
        """Close its channel; the command ends when it next writes, or is ended by its caller."""
        self._channel.close()


class Host(ABC):
    """One machine; a context manager. Methods raise HostError when the machine is not there (any more)."""

    name: str = "host"

    def __init__(self) -> None:
        self._client: paramiko.SSHClient | None = None
        self._kept: set[str] = set()
        self.loaded: tuple[ModuleFiles, Parameters] | None = None

    # what a subclass says

    @abstractmethod
    def start(self) -> None:
        """Bring the machine up and connect. HostError with the console's last lines when it does not come up."""

    @abstractmethod
    def stop(self) -> None:
        """Take the machine down (or leave a machine that is not ours as it was). Never raises for one already gone."""

    @abstractmethod
    def console_tail(self, lines: int = 25) -> str:
        """The last lines of its console (of the kernel's log where there is no console)."""

    @abstractmethod
    def warnings(self) -> list[Warn]:
        """The kernel's WARNs since the machine came up, oldest first."""

    @abstractmethod
    def check(self) -> None:
        """HostError when the machine has died: it says of what. Cheap: asked several times a second."""

    # common to all

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

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
        """Run a shell command to its end.

        With ``check`` a status other than 0 is a HostError. HostError too when it does not end within ``timeout``
        seconds or the machine dies meanwhile.
        """
        channel = self._channel(command)
        out, err = bytearray(), bytearray()
        deadline = time.monotonic() + timeout
        feeder = threading.Thread(target=_feed, args=(channel, input or b""), name="feed", daemon=True)
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
        """Run a command with ``data`` on its standard input; HostError when it fails.

        The data goes compressed where that is shorter: the emulator unpacks faster than it decrypts.
        """
        packed = gzip.compress(data, 6, mtime=0)
        if len(packed) < len(data):
            command, data = f"gzip -dc | {command}", packed
        self.run(command, input=data, timeout=120 + len(data) / 50_000, check=True)

    def put(self, data: bytes, path: str, *, mode: int = 0o644) -> None:
        """Write a file on the host."""
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
        """Read a file of the host."""
        return self.run(f"cat {shlex.quote(path)}", timeout=300, check=True).data

    def connect(self, port: int) -> socket.socket:
        """A socket that is connected to 127.0.0.1:``port`` as the host sees it. HostError when nobody listens."""
        try:
            channel = self._transport.open_channel("direct-tcpip", ("127.0.0.1", port), ("127.0.0.1", 0), timeout=20)
        except (paramiko.SSHException, OSError, EOFError) as error:
            self.check()
            raise HostError(f"{self.name}: port {port} does not answer: {error}") from error
        return _tunnel(channel, channel.close)

    # KVM's modules

    def load(self, modules: ModuleFiles, parameters: Parameters) -> None:
        """Load KVM's modules of one level. Those of another level are unloaded first. HostError when one is refused."""
        self.unload()
        for path, words in (
            (modules.irqbypass, ""),
            (modules.kvm, parameters.kvm),
            (modules.kvm_intel, parameters.kvm_intel),
        ):
            if path is None or not path.exists():  # irqbypass: built into the image
                continue
            done = self.run(f"insmod {self.deliver(path)} {words}", timeout=120)
            if done.status:
                log = self.run("dmesg | tail -n 5").stdout.strip()
                self.unload()
                raise HostError(
                    f"{self.name} refused {path.name} {words}: {done.stderr.strip()}; the kernel's log:\n{log}"
                )
        self.loaded = (modules, parameters)

    def reload_intel(self, modules: ModuleFiles, parameters: Parameters) -> None:
        """Take kvm-intel.ko out and load it again, the kvm.ko that is there staying. HostError when it is refused."""
        self.run(f"rmmod kvm_intel && insmod {self.deliver(modules.kvm_intel)} {parameters.kvm_intel}", check=True)
        self.loaded = (modules, parameters)

    def unload(self) -> None:
        """Remove KVM's modules, if there are any. HostError when something still uses them (QEMU)."""
        done = self.run(
            "for m in kvm_intel kvm irqbypass; do "
            "[ ! -d /sys/module/$m/holders ] || [ ! -e /sys/module/$m/initstate ] || rmmod $m || exit 1; done",
            timeout=120,
        )
        self.loaded = None
        if done.status:
            raise HostError(
                f"{self.name}: KVM's modules cannot be removed: {done.stderr.strip()} (does a QEMU still run there?)"
            )


def place(path: Path) -> str:
    """Where on a host the copy of a local file lies: its contents and its name say it."""
    return f"{FILES}/{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}-{path.name}"


def _tunnel(channel: paramiko.Channel, end: Callable[[], None]) -> socket.socket:
    """The local end of a channel; ``end`` is called when it is closed."""
    ours, theirs = socket.socketpair()
    for pump in (lambda: _to_channel(theirs, channel, end), lambda: _from_channel(theirs, channel)):
        threading.Thread(target=pump, name="tunnel", daemon=True).start()
    return ours


def _feed(channel: paramiko.Channel, data: bytes) -> None:
    """Standard input of a command, then its end. A command that does not read it all is no error."""
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
    """An SSH connection whose host key was checked.

    ``host_key`` (``ssh-ed25519 AAAA...``) is the only one accepted; None takes ``known_hosts``, else the user's own.
    HostError for a wrong key, a refused log-in, or nobody there within ``timeout`` seconds.
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
        raise HostError(
            f"no SSH connection to {where}: {error or type(error).__name__}; does a server listen there, and is the "
            "host's key known (ssh-keyscan shows it, known_hosts takes it)?"
        ) from error
    return client


def _decode(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:
        raise InputError(f"host key {data[:30]!r} is not base64: {error}") from error
