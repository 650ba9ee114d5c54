"""A lab machine whose kernel is booted whole, by commands that the lab gives.

The commands run where kvmirror does, by the shell. What stands in braces is filled in: the kernel's image, the folder
of a level's modules, the kernel's release, the machine's address.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from harness.build import kernel
from harness.errors import HostError, InfraError, InputError
from harness.hosts.channel import CommandResult
from harness.hosts.kvm_modules import ModuleFiles
from harness.process import PROGRESS, programs

BOOT: Final = 600.0  # seconds that a command may take, and a machine after it until it takes a log-in
TRY: Final = 3.0  # seconds between two attempts to log in meanwhile
FILLED: Final = ("kernel", "modules", "release", "host")
_BRACES: Final = re.compile(r"(?<!\$)\{(\w+)\}")


class BootError(InfraError):
    """The lab's command failed, or booted another kernel: asking another time would not help."""


@dataclass(frozen=True, slots=True)
class KernelImage:
    """This is the kernel that the modules belong to: its bzImage, and its build id (empty where it is not known)."""

    path: Path
    build_id: str = ""


@dataclass(frozen=True, slots=True)
class BootCommands:
    """``boot`` boots a kernel, ``restore`` (None: there is none) what the machine ran before."""

    boot: str
    restore: str | None = None

    @classmethod
    def of(cls, boot: str | None, restore: str | None) -> BootCommands | None:
        """The function makes them of the options; None where the lab gives no command.

        Raises InputError for a command without ``{kernel}``, with other braces, and for a restoring one alone.
        """
        if boot is None:
            if restore is not None:
                raise InputError(f"--boot-restore-command {restore!r}: nothing is booted without --boot-command")
            return None
        _check("--boot-command", boot, FILLED)
        if "{kernel}" not in boot:
            raise InputError(
                f"--boot-command {boot!r}: it says nowhere which kernel; write {{kernel}} where its path goes"
            )
        if restore is not None:
            _check("--boot-restore-command", restore, ("host",))
        return cls(boot, restore)

    @property
    def each_level(self) -> bool:
        """A command that is given a level's modules boots each level; another one boots the kernel of them all."""
        return "{modules}" in self.boot


def _check(option: str, command: str, known: tuple[str, ...]) -> None:
    for name in _BRACES.findall(command):
        if name not in known:
            there = ", ".join(f"{{{one}}}" for one in known)
            raise InputError(f"{option} {command!r}: {{{name}}} is nothing that is filled in; there is {there}")


def filled(command: str, values: Mapping[str, str]) -> str:
    """The function gives the command with what stands in braces filled in, quoted for the shell."""
    return _BRACES.sub(lambda found: shlex.quote(values[found[1]]), command)


def carry_out(name: str, command: str) -> None:
    """The lab's command runs to its end here.

    Raises BootError, with its last lines, when it fails or takes longer than BOOT seconds.
    """
    with tempfile.TemporaryDirectory(prefix="kvmirror-boot-") as folder:
        said = Path(folder) / "said"
        try:
            done = programs.run(["sh", "-c", command], log=said, timeout=BOOT, check=False)
        except programs.Timeout as error:
            raise BootError(f"{name}: {error}") from error
        if done.returncode:
            words = programs.tail_of(said) or "it said nothing"
            raise BootError(f"{name}: the command {command!r} failed with status {done.returncode}:\n{words}")


@dataclass(frozen=True, slots=True)
class RunningKernel:
    """This is the kernel that runs: ``uname -r`` and ``-v``, the id of this boot of it, its build id in hexadecimal."""

    release: str = ""
    version: str = ""
    boot: str = ""
    build_id: str = ""


class Reached(Protocol):
    """This is what is asked here of the machine: ``harness.hosts.ssh.SshHost``."""

    name: str
    address: str

    def run(self, command: str) -> CommandResult:
        """A command is run there."""
        ...

    def connect_only(self) -> None:
        """The connection is made."""
        ...

    def disconnect(self) -> None:
        """The connection is ended."""
        ...


class Booter:
    """The booter boots a machine by the lab's commands, and knows what ran there before."""

    def __init__(self, machine: Reached, commands: BootCommands, image: KernelImage, release: str) -> None:
        self._machine = machine
        self._commands = commands
        self._image = image
        self._release = release
        self._was: RunningKernel | None = None  # what ran before the first boot of ours
        self._level: ModuleFiles | None = None  # what the machine was booted for, where each level is

    def needed(self) -> bool:
        """One boot serves all levels, and what runs is not the image: True."""
        if self._commands.each_level:
            return False
        found = self._kernel()
        return found.release != self._release or found.build_id != self._image.build_id or not found.build_id

    def wants(self, modules: ModuleFiles) -> bool:
        """The machine is to be booted for the level of ``modules``: True."""
        return self._commands.each_level and modules != self._level

    def _kernel(self) -> RunningKernel:
        """The function tells which kernel runs, by what it says of itself."""
        told = self._machine.run("uname -r; uname -v; cat /proc/sys/kernel/random/boot_id").stdout.splitlines()
        release, version, boot = [*told, "", "", ""][:3]
        return RunningKernel(
            release, version, boot, build_id_of(self._machine.run("cat /sys/kernel/notes 2>/dev/null").data)
        )

    def boot(self, modules: ModuleFiles | None = None) -> None:
        """The lab's command boots the image.

        Raises BootError when it fails, the machine does not come up, or another kernel runs then.
        """
        name, command, image = self._machine.name, self._commands.boot, self._image
        now = self._kernel()
        self._was = self._was or now
        values = {"kernel": str(image.path), "release": self._release, "host": self._machine.address}
        values |= {} if modules is None else {"modules": str(modules.kvm.parent)}
        found = self._by(filled(command, values), now)
        if found.release != self._release:
            raise BootError(f"{name}: the command booted Linux {found.release}, not {self._release}: {command}")
        if image.build_id and found.build_id and found.build_id != image.build_id:
            raise BootError(
                f"{name}: the command booted another Linux {found.release} than {image.path}: its build id is "
                f"{found.build_id}, and not {image.build_id}"
            )
        self._level = modules

    def _by(self, command: str, now: RunningKernel, *, patient: bool = False) -> RunningKernel:
        """The command runs here; the kernel that runs on the machine then, which is another boot than ``now``.

        ``patient``: the machine is left, which nobody gives up.
        """
        machine = self._machine
        PROGRESS.say(f"{machine.name}: Linux {now.release} ends by {command}")
        machine.disconnect()
        carry_out(machine.name, command)
        deadline = time.monotonic() + BOOT
        while True:
            why = "it was not booted: what ran before runs"
            try:
                machine.connect_only()
                found = self._kernel()
                if found.boot != now.boot:
                    PROGRESS.say(f"{machine.name}: Linux {found.release} runs")
                    return found
            except HostError as error:
                why = str(error).splitlines()[0]
            machine.disconnect()
            if time.monotonic() > deadline:
                raise BootError(f"{machine.name} has not come up within {BOOT:.0f} s of {command!r}: {why}")
            if not patient:
                programs.breathe()
            time.sleep(TRY)

    def compare(self, modules: ModuleFiles) -> None:
        """The modules that are loaded are those that were meant, where the kernel tells their build ids.

        Raises BootError when they are others.
        """
        for name, path in (("kvm", modules.kvm), ("kvm_intel", modules.kvm_intel)):
            told = self._machine.run(f"cat /sys/module/{name}/notes/.note.gnu.build-id 2>/dev/null")
            loaded, meant = build_id_of(told.data), kernel.build_id(path)
            if loaded and loaded != meant:
                raise BootError(f"{self._machine.name}: {name} has the build id {loaded}, and {path} has {meant}")

    def restore(self) -> None:
        """What ran before the first boot of ours is booted, where the lab has a command for that. It never raises: what
        runs instead is said.
        """
        was, self._was = self._was, None
        if was is None:
            return
        name, command = self._machine.name, self._commands.restore
        now = RunningKernel()
        with programs.Group().mine():  # the work may have been given up; this goes on
            with contextlib.suppress(HostError):
                self._machine.connect_only()
                now = self._kernel()
            if now.boot == was.boot:  # the command failed before it came to that
                return
            if command is None:
                PROGRESS.say(f"{name} ran Linux {was.release} before; --boot-restore-command says how that is booted")
                return
            try:
                found = self._by(filled(command, {"host": self._machine.address}), now, patient=True)
            except InfraError as error:
                PROGRESS.say(f"{name} does not run Linux {was.release} again: {error}")
                return
        if (found.release, found.version) != (was.release, was.version):
            PROGRESS.say(f"{name} runs Linux {found.release} ({found.version}) now, not {was.release} ({was.version})")


def build_id_of(notes: bytes) -> str:
    """The function gives the GNU build id in ELF notes as sysfs has them, in hexadecimal; empty where there is none."""
    at = 0
    while at + 12 <= len(notes):
        size, length, kind = (int.from_bytes(notes[at + i : at + i + 4], "little") for i in (0, 4, 8))
        name = notes[at + 12 : at + 12 + size]
        begin = at + 12 + (size + 3 & ~3)
        if kind == 3 and name == b"GNU\0":
            return notes[begin : begin + length].hex()
        at = begin + (length + 3 & ~3)
    return ""
