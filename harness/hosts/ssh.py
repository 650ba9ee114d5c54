"""A lab machine with an Intel CPU: whatever kernel it runs must be the one the levels' modules were built for."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import paramiko

from harness import protocol
from harness.errors import HostError
from harness.hosts import before
from harness.hosts import board as boards
from harness.hosts.address import parse
from harness.hosts.base import Host
from harness.hosts.booted import BootCommands, Booter, KernelImage
from harness.hosts.channel import Remote
from harness.hosts.console import Recogniser, Warn
from harness.hosts.kvm_modules import ModuleFiles, Parameters
from harness.hosts.login import notice_loss, open_client
from harness.hosts.transport import FILES
from harness.process import PROGRESS, programs

TOOLS: Final = ("insmod", "rmmod", "modprobe", "gzip", "dmesg", "truncate", "mount", "dd")
PROGRAMS: Final = f"{FILES}/bin"  # what we bring along, in front of the machine's own PATH
QEMU: Final = "qemu-system-x86_64"
LEAVING: Final = 120.0  # seconds in which a machine has to become what it was


@dataclass(frozen=True, slots=True)
class Shortcoming:
    """One thing that a lab machine must have, whether it has it, and what to do about it where not."""

    what: str
    ok: bool
    found: str
    mend: str


class SshHost(Host):
    """A machine reached as ``[ssh://][user@]host[:port]`` (root, 22); it knows our key and we know its.

    It must run the kernel that the modules were built for (``release``), have KVM as modules that nobody uses, and
    QEMU with the CPU property vmx-mbec (``qemu``: a path, or a name on root's PATH); L1 runs on its machine type
    ``l1_machine`` (None: the best that it has). ``memio`` (built from images/rootfs/memio.c) is sent. What is changed
    there is put back at the end (``harness.hosts.before``). With ``boot`` the lab's commands boot ``image``, the kernel
    of the modules, where it does not run (``harness.hosts.booted``).
    """

    def __init__(
        self,
        address: str,
        *,
        key: Path | None = None,
        known_hosts: Path | None = None,
        release: str | None = None,
        qemu: str = QEMU,
        l1_machine: str | None = None,
        memio: Path | None = None,
        boot: BootCommands | None = None,
        image: KernelImage | None = None,
    ) -> None:
        super().__init__()
        where = parse(address)
        self.user, self.address, self.port = where.user, where.host, where.port
        self.name = str(where)
        self.key = key
        self.known_hosts = known_hosts
        self.release = release  # what uname -r must say
        self.qemu = qemu
        self.l1_machine = l1_machine
        self.memio = memio
        self.boot = boot
        self._booter = Booter(self, boot, image, release) if boot and image and release else None
        self._lines_before = 0
        self._before: before.Before | None = None  # known from ``start`` to ``stop``
        self._keeper: Remote | None = None
        self._sent: set[str] = set()
        self._leaving = False  # what is under way is the end, which nobody gives up

    def start(self) -> None:
        """Connect and look whether the machine will do. HostError with the reason and the mend when it will not."""
        self.connect_only()
        try:
            self._end_of_another()
            if self._booter is not None and self._booter.needed():
                self._boot()
            self._settle()
            if not self.board.quick:
                PROGRESS.say(f"{self.name}: {self.board.words}")
        except BaseException:
            self.stop()
            raise

    def _settle(self) -> None:
        """Look whether the machine will do, and bring to it what a run takes there."""
        for finding in self.examine():
            if not finding.ok:
                raise HostError(f"{self.name}: {finding.what}: {finding.found}; {finding.mend}")
        self._remember()
        self._bring()
        self._lines_before = len(self._log())

    def boot_for(self, modules: ModuleFiles) -> bool:
        """The machine is as every host: where the lab's command is given a level's modules."""
        if self._booter is None or not self._booter.wants(modules):
            return False
        self._leave()
        self._boot(modules)
        self._settle()
        return True

    def _boot(self, modules: ModuleFiles | None = None) -> None:
        assert self._booter is not None
        if used := before.users(self.run):
            raise HostError(f"{self.name} is not booted anew while somebody uses KVM: {', '.join(used)}")
        self._booter.boot(modules)

    def load(self, modules: ModuleFiles, parameters: Parameters) -> None:
        """The function does as every host does, with a boot before where ``boot_for`` says so.

        On a machine that is booted whole the modules
        that run are compared with those that were meant.

        Raises BootError when they are others.
        """
        self.boot_for(modules)
        super().load(modules, parameters)
        if self._booter is not None:
            self._booter.compare(modules)

    def _end_of_another(self) -> None:
        """Put back what a run left that never came to its end; HostError where one is still at work there."""
        if self.run(f"[ -e {before.BACK} ]").status:
            return
        if self.run(f"grep -l -e 'ca[t] >/dev/null; mv {before.BACK}' /proc/[0-9]*/cmdline 2>/dev/null").stdout:
            raise HostError(f"{self.name}: another kvmirror is at work there; wait for its end")
        PROGRESS.say(f"{self.name}: a run died there; what it changed is put back first")
        self._put_back()

    def _remember(self) -> None:
        """From here on the machine has the way back lying ready, and starts it when this connection ends."""
        self._before = before.look(self.run)
        self.huge_pages = self._before.huge_pages
        self.run(f"mkdir -p {FILES}", check=True)
        super().put(before.script(self._before).encode(), before.BACK, mode=0o700)
        self._keeper = self.spawn(before.KEEPER)

    def _put_back(self) -> None:
        """Make the machine what it was, and say what could not be."""
        for line in self.run(before.RUN, timeout=LEAVING).stdout.splitlines():
            PROGRESS.say(f"{self.name}: {line}")

    def connect_only(self) -> None:
        """The connection is made, nothing looked at yet.

        Raises HostError when there is none to be had.
        """
        self._client = open_client(
            self.address, self.port, self.user, key=self.key, host_key=None, known_hosts=self.known_hosts, timeout=15
        )
        notice_loss(self._transport)

    def disconnect(self) -> None:
        """A machine that was only looked at is left."""
        self._disconnect()

    def examine(self) -> Iterator[Shortcoming]:
        """What a run needs of the machine, one thing after the other; nothing is changed there."""
        user = self.run("id -u", check=True).stdout.strip()
        yield Shortcoming("root", user == "0", f"user {self.user} has id {user}", "log in as root: modules are loaded")
        info = self.cpu_info()
        yield Shortcoming(
            "CPU", info.vendor == "GenuineIntel", f"{info.vendor}, {info.lines.get('model name', 'no name')}",
            "mode-based execute control is Intel's: take an Intel machine, or the emulated host",
        )  # fmt: skip
        yield Shortcoming(
            "VMX", info.vmx, "present" if info.vmx else "absent",
            "enable it in the firmware, or nesting where it is a virtual machine",
        )  # fmt: skip
        cpu = self.capabilities().cpu()
        yield Shortcoming(
            "MBEC", cpu.mbec, "present" if cpu.mbec else "absent, or MSR 0x48B cannot be read",
            "take a CPU of 2017 or later, and `modprobe msr` there",
        )  # fmt: skip
        release = self.run("uname -r", check=True).stdout.strip()
        right = self.release in (None, release)
        other = "" if right else f", and the modules are built for {self.release}"
        yield Shortcoming(
            "kernel", right or self.boot is not None,
            f"Linux {release}{other}" + (", which the lab's command boots" if other and self.boot is not None else ""),
            "boot the kernel of 'kvmirror build' there with your drivers (or name a --boot-command), or build "
            "for its own with --linux",
        )  # fmt: skip
        inside = self.run("[ ! -d /sys/module/kvm ] || [ -e /sys/module/kvm/initstate ]").status
        yield Shortcoming(
            "KVM", not inside, "built into the kernel" if inside else "a module, or not there",
            "build the kernel with CONFIG_KVM=m and CONFIG_KVM_INTEL=m",
        )  # fmt: skip
        used = before.users(self.run)
        yield Shortcoming(
            "KVM's users", not used, ", ".join(used) or "none", "end the virtual machines (and what else has KVM) there"
        )
        lost = before.not_to_be_found(self.run, before.look(self.run))
        yield Shortcoming(
            "KVM's own modules", not lost,
            f"modprobe does not find {' and '.join(lost)}, to put back" if lost else "as modprobe has them",
            f"unload them (rmmod {' '.join(reversed(lost))}), or install them and run depmod there",
        )  # fmt: skip
        forced = self.run("cat /sys/module/module/parameters/sig_enforce 2>/dev/null").stdout.strip() == "Y"
        yield Shortcoming(
            "unsigned modules", not forced, "refused" if forced else "taken",
            "switch off module signature enforcement and lockdown (Secure Boot) there",
        )  # fmt: skip
        missing = [t for t in TOOLS if self.run(f"command -v {t}").status]
        yield Shortcoming(
            "tools", not missing, f"missing: {', '.join(missing)}" if missing else "all there", "install them there"
        )
        listed = self.run(f"{shlex.quote(self.qemu)} -cpu help", timeout=60)
        known = "vmx-mbec" in listed.stdout
        yield Shortcoming(
            "QEMU", listed.status == 0 and known,
            f"{self.qemu} knows vmx-mbec" if known else f"{self.qemu} does not know vmx-mbec" if not listed.status
            else f"{self.qemu} does not run: {(listed.stderr or listed.stdout).strip()[-120:]}",
            "install a QEMU with that CPU property (Debian 12's 7.2 lacks it) and name it with --host-qemu",
        )  # fmt: skip
        if known:
            yield self._board()
        words = self.run("df -k /dev/shm | tail -n 1").stdout.split()
        room = int(words[3]) >> 10 if len(words) > 3 and words[3].isdigit() else 0  # MiB
        yield Shortcoming(
            "/dev/shm", room << 20 >= protocol.L1_MEMORY, f"{room} MiB free",
            f"{protocol.L1_MEMORY >> 20} MiB are needed for L1's memory: remount it with a larger size",
        )  # fmt: skip
        traced = self.run("[ -w /sys/kernel/tracing/tracing_on ]").status == 0
        yield Shortcoming(
            "tracepoints", traced, "there" if traced else "not there",
            "mount -t tracefs tracefs /sys/kernel/tracing (CONFIG_FTRACE): livelocks are confirmed by them",
        )  # fmt: skip

    def _board(self) -> Shortcoming:
        """What L1 is made of there, which is kept; a shortcoming where QEMU has none of it."""
        qemu, wanted = shlex.quote(self.qemu), self.l1_machine
        machines, devices = (self.run(f"{qemu} -{what} help", timeout=60).stdout for what in ("machine", "device"))
        found = boards.offered(machines, devices, wanted)
        self.board = found or self.board
        lacks = f"{self.qemu} lacks the machine {wanted or boards.names()}"
        if wanted == boards.QUICK:
            lacks += f", or the device {boards.PVPANIC}"
        return Shortcoming(
            "QEMU's machine", found is not None, found.words if found else lacks,
            f"take another QEMU, or another --l1-machine than {wanted}" if wanted
            else "install a QEMU as upstream or Debian build it: this one leaves out all that L1 runs on",
        )  # fmt: skip

    def _bring(self) -> None:
        """Put our own programs where every command finds them."""
        self.run(f"mkdir -p {PROGRAMS}", check=True)
        if self.memio is not None:
            self.put(self.memio.read_bytes(), f"{PROGRAMS}/memio", mode=0o755)
        found = self.run(f"command -v {shlex.quote(self.qemu)}", check=True).stdout.strip()
        if found != f"{PROGRAMS}/{QEMU}":
            self.run(f"ln -sfn {shlex.quote(found)} {PROGRAMS}/{QEMU}", check=True)

    def put(self, data: bytes, path: str, *, mode: int = 0o644) -> None:
        """As every host; what was written is removed at the end."""
        self._sent.add(path)
        super().put(data, path, mode=mode)

    def _channel(self, command: str) -> paramiko.Channel:
        return super()._channel(f"export PATH={PROGRAMS}:$PATH; {command}")

    def _log(self) -> list[str]:
        return self.run("dmesg").stdout.splitlines()

    def check(self) -> None:
        """The run may be given up: then it is Cancelled, once, so that what leaves the machine clean goes through.

        What else is to be seen from here is the connection: raises HostError where it is broken.
        """
        if not self._leaving:
            try:
                programs.breathe()
            except programs.Cancelled:
                self._leaving = True
                raise
        if self._client is not None:
            transport = self._client.get_transport()
            if transport is None or not transport.is_active():
                raise HostError(f"{self.name}: the SSH connection broke")

    def console_tail(self, lines: int = 25) -> str:
        """The function gives the last lines of the kernel's log; empty when the machine does not answer."""
        try:
            return "\n".join(self._log()[-lines:])
        except HostError:
            return ""

    def warnings(self) -> list[Warn]:
        """The function gives the WARNs in the kernel's log since ``start``."""
        recogniser = Recogniser()
        for line in self._log()[self._lines_before :]:
            recogniser.feed(line)
        return recogniser.warnings

    def stop(self) -> None:
        """The machine becomes what it was, by itself where the connection is gone already, and that is closed."""
        self._leave()
        self._disconnect()
        if self._booter is not None:
            self._leaving = True
            self._booter.restore()
            self._leaving = False
            self._disconnect()

    def _leave(self) -> None:
        """What this boot of the machine was before we came it is again."""
        if self._before is not None:
            self._leaving = True
            try:
                if self._sent:
                    self.run(f"rm -rf {shlex.join(sorted(self._sent))}")
                self._put_back()
            except HostError as error:
                PROGRESS.say(
                    f"{str(error).splitlines()[0]}; it puts itself back when it notices that the connection is gone"
                )
            self._before = None
            self._leaving = False
        self.loaded = None
        self._sent.clear()
