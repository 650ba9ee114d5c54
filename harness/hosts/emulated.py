"""The emulated Intel machine: Bochs, booting our image, reached over its serial line and a forwarded SSH port."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import socket
import time
import tty
from pathlib import Path
from typing import Final

from harness.build import Cache, rootfs
from harness.errors import HostError
from harness.hosts.base import Host
from harness.hosts.board import BOARD, Board
from harness.hosts.boot import BLOCK, Boot
from harness.hosts.console import Console, Warn
from harness.hosts.login import open_client
from harness.hosts.models import USUAL, Model
from harness.process import programs

BIOS: Final = Path("/usr/share/bochs/BIOS-bochs-latest")
VGABIOS: Final = Path("/usr/share/vgabios/vgabios.bin")
MEMORY_MIB: Final = 2048  # the most that 3.0 takes for host memory
IPS: Final = 100_000_000  # emulated instructions per emulated second
BOOT_TIMEOUT: Final = 90.0  # seconds of wall time
TRIES: Final = 3  # a port that was free may be taken when the emulator gets to it

_TELLING = re.compile(r"PANIC|>>|^\d{11}p|hostfwd|fatal|: error", re.IGNORECASE)
"""Lines of Bochs' log that say why it ended; a "p" behind the eleven digits of time is a panic."""


def free_port() -> int:
    """The function gives a TCP port of 127.0.0.1 that nobody has now.

    Raises HostError when there is none.
    """
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise HostError(
            f"no free port on 127.0.0.1: {error.strerror}; end what holds them (ss -ltnp shows it)"
        ) from error


class EmulatedHost(Host):
    """The host is Bochs with our image.

    ``bochs`` is a path, ``boot`` what it is switched on with, ``model`` whose CPU it has. The working folder (bochsrc,
    Bochs' log, the console's) is kept when the host fails; ``keep`` keeps it always. ``port`` is where 127.0.0.1 leads
    to its SSH server (0: one that is free).
    """

    few_commands = 100  # its clock goes by instructions: three programs with a dirty log took 30 ms each beside the log

    def __init__(
        self,
        cache: Cache,
        *,
        bochs: Path,
        boot: Boot,
        model: Model = USUAL,
        memory_mib: int = MEMORY_MIB,
        name: str = "emulated host",
        boot_timeout: float = BOOT_TIMEOUT,
        keep: bool = False,
        port: int = 0,
        board: Board = BOARD,
    ) -> None:
        super().__init__()
        self.cache = cache
        self.bochs = bochs
        self.boot = boot
        self.model = model
        self.memory_mib = memory_mib
        self.name = name
        self.boot_timeout = boot_timeout
        self.keep = keep
        self.board = board
        self.folder: Path | None = None
        self.port = port
        self._fixed = bool(port)
        self.boot_seconds = 0.0  # wall time from the emulator's start to the first command possible
        self._process: programs.Process | None = None
        self._console: Console | None = None
        self._descriptors: list[int] = []

    def start(self) -> None:
        """The emulator boots.

        Raises HostError, with the console's and Bochs' last lines, when it does not come up.
        """
        for path, mend in (
            (self.bochs, "build it, or give another with --bochs"),
            (self.boot.bzimage, "build it again"),
            (BIOS, "install bochsbios"),
            (VGABIOS, "install vgabios"),
        ):
            if not path.is_file():
                raise HostError(f"{path} is missing: {mend}")
        for attempt in range(TRIES):
            try:
                self._boot()
                return
            except BaseException as error:
                taken = self._port_taken()
                if isinstance(error, HostError) and taken and attempt + 1 < TRIES:
                    self.stop()
                    continue
                kept = self.folder if isinstance(error, HostError) and not programs.given_up() else None
                self._down(keep=kept is not None)
                if kept is not None:
                    raise HostError(f"{error}\n(the emulator's files are kept in {kept})") from error
                raise

    def _boot(self) -> None:
        self.folder = programs.scratch("kvmirror-host-")
        if not self._fixed:
            self.port = free_port()
        ours, theirs = pty.openpty()
        tty.setraw(theirs)
        self._descriptors = [ours, theirs]  # both stay open: a pty whose last user closes it loses what was written
        slirp = self.folder / "slirp.conf"
        slirp.write_text(rootfs.render("slirp.conf.j2", port=self.port))
        medium = self.boot.make(self.folder)
        rc = self.folder / "bochsrc"
        rc.write_text(
            rootfs.render(
                "bochsrc.j2",
                memory_mib=self.memory_mib,
                bios=BIOS,
                vgabios=VGABIOS,
                cpu_model=self.model.emulated_as,
                ips=IPS,
                slirp_conf=slirp,
                iso=medium.iso,
                memory=medium.memory,
                block_kib=BLOCK >> 10,
                console=os.ttyname(theirs),
                log=self.folder / "bochs.log",
            )
        )
        began = time.monotonic()
        self._console = Console(ours, self.folder / "console.log")
        self._process = programs.spawn(
            [self.bochs, "-q", "-f", rc],
            cwd=self.folder,
            log=self.folder / "bochs.out",
            env={"BXSHARE": str(BIOS.parent)},
        )
        self._wait_ready()
        self._client = open_client(
            "127.0.0.1",
            self.port,
            "root",
            key=rootfs.keys(self.cache).client_private,
            host_key=rootfs.keys(self.cache).host_public,
            timeout=30,
        )
        self._kept.update(file.there for file in self.boot.fitting)
        self.boot_seconds = time.monotonic() - began

    def _wait_ready(self) -> None:
        assert self._console is not None
        deadline = time.monotonic() + self.boot_timeout
        while True:
            programs.breathe()
            self._check_process()
            left = deadline - time.monotonic()
            try:
                self._console.wait_ready(min(0.5, left) if left > 0 else 0)
                return
            except HostError:
                if self._console.trouble or left <= 0:
                    raise self._console.error(
                        f"{self.name} {self._console.trouble}"
                        if self._console.trouble
                        else f"{self.name} did not get ready within {self.boot_timeout:.0f} s"
                    ) from None

    def _check_process(self) -> None:
        """HostError when the emulator itself has ended."""
        if self._process is None or self.folder is None:
            raise HostError(f"{self.name} does not run: start it first")
        code = self._process.returncode
        if code is not None:
            raise HostError(
                f"{self.name}: the emulator ended with status {code}: {self._panic() or 'no reason in its log'}; "
                f"the console's last lines:\n{self.console_tail()}"
            )

    def _panic(self) -> str:
        """Bochs' own panic or last error lines, from its log and its output."""
        assert self.folder is not None
        found: list[str] = []
        for name in ("bochs.log", "bochs.out"):
            found += [line for line in programs.tail_of(self.folder / name, 60).splitlines() if _TELLING.search(line)]
        return "; ".join(dict.fromkeys(line.strip() for line in found[-4:]))

    def _port_taken(self) -> bool:
        """Whether Bochs says that its forwarded port could not be had."""
        if self.folder is None:
            return False
        return any(
            "hostfwd" in line and ("fail" in line.lower() or "could not" in line.lower())
            for name in ("bochs.log", "bochs.out")
            for line in programs.tail_of(self.folder / name, 400).splitlines()
        )

    def check(self) -> None:
        """HostError when the kernel or the emulator has died: it says of what."""
        if self._console is not None:
            self._console.check()
        self._check_process()

    def console_tail(self, lines: int = 25) -> str:
        """The function gives the last lines of the serial console."""
        return self._console.tail(lines) if self._console else ""

    def warnings(self) -> list[Warn]:
        """The function gives the kernel's WARNs since power-on, oldest first."""
        return self._console.warnings() if self._console else []

    def stop(self) -> None:
        """The emulator is ended and its working folder removed. There is nothing on its disk to lose. There is nothing
        on its disk to lose.
        """
        self._down(keep=self.keep)

    def _down(self, *, keep: bool) -> None:
        self._disconnect()
        if self._process is not None:
            self._process.stop(grace=0.5)
            self._process = None
        if self._console is not None:
            self._console.close()
        for descriptor in self._descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._descriptors = []
        self._console = None
        self.loaded = None
        if self.folder is not None:
            (programs.kept if keep else programs.removed)(self.folder)
        self.folder = None
