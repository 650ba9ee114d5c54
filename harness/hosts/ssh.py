"""A lab machine with an Intel CPU: whatever kernel it runs must be the base kernel, its KVM as modules."""

from __future__ import annotations

import re
from pathlib import Path

from harness.console import Recogniser, Warn
from harness.errors import HostError, InputError
from harness.hosts.base import Host, open_client

_ADDRESS = re.compile(r"(?:(?P<user>[\w.-]+)@)?(?P<host>\[[0-9a-fA-F:]+\]|[\w.-]+)(?::(?P<port>\d{1,5}))?")
_NEEDED = ("qemu-system-x86_64", "insmod", "rmmod", "gzip", "memio")


class SshHost(Host):
    """A machine reached as ``[user@]host[:port]`` (root, 22); its key in known_hosts, ours in its authorized_keys.

    It must run the base kernel (modules of a level go with no other), have kvm and kvm_intel as modules that are not
    in use, and ``qemu-system-x86_64`` and ``memio`` (images/rootfs/memio.c) on its path. What is loaded there at the
    start is gone afterwards: the machine is a test machine.
    """

    def __init__(self, address: str, *, key: Path | None = None, release: str | None = None) -> None:
        super().__init__()
        match = _ADDRESS.fullmatch(address)
        if not match or int(match["port"] or 22) not in range(1, 65536):
            raise InputError(f"host {address!r} is not an address: write [user@]host[:port], as in root@lab1:22")
        self.user = match["user"] or "root"
        self.address = match["host"].strip("[]")
        self.port = int(match["port"] or 22)
        self.key = key
        self.release = release  # what uname -r must say
        self.name = f"{self.user}@{match['host']}:{self.port}"
        self._lines_before = 0

    def start(self) -> None:
        """Connect and look whether the machine will do. HostError with the reason and the mend when it will not."""
        self._client = open_client(self.address, self.port, self.user, key=self.key, host_key=None, timeout=15)
        try:
            self._examine()
        except BaseException:
            self._disconnect()
            raise

    def _examine(self) -> None:
        cpu = self.run("cat /proc/cpuinfo", check=True).stdout
        vendor = next(
            (line.split(":")[1].strip() for line in cpu.splitlines() if line.startswith("vendor_id")), "unknown"
        )
        flags = next((line.split() for line in cpu.splitlines() if line.startswith("flags")), [])
        if vendor != "GenuineIntel":
            raise HostError(
                f"{self.name} has a CPU of {vendor}, and mode-based execute control is Intel's: take an Intel machine, "
                "or the emulated host"
            )
        if "vmx" not in flags:
            raise HostError(
                f"{self.name} offers no VMX: enable it in its firmware, or nesting where it is a virtual machine"
            )
        release = self.run("uname -r", check=True).stdout.strip()
        if self.release and release != self.release:
            raise HostError(
                f"{self.name} runs Linux {release}; the levels' modules go with {self.release}: boot that kernel there"
            )
        missing = [t for t in _NEEDED if self.run(f"command -v {t}").status]
        if missing:
            raise HostError(
                f"{self.name} lacks {', '.join(missing)}: install them there (memio: images/rootfs/memio.c)"
            )
        if self.run("id -u", check=True).stdout.strip() != "0":
            raise HostError(f"{self.user} is not root on {self.name}: modules cannot be loaded; log in as root")
        self._lines_before = len(self._log())

    def _log(self) -> list[str]:
        return self.run("dmesg").stdout.splitlines()

    def check(self) -> None:
        """Nothing to see from here but the connection, which every command uses."""

    def console_tail(self, lines: int = 25) -> str:
        """The last lines of the kernel's log; empty when the machine does not answer."""
        try:
            return "\n".join(self._log()[-lines:])
        except HostError:
            return ""

    def warnings(self) -> list[Warn]:
        """The WARNs in the kernel's log since ``start``."""
        recogniser = Recogniser()
        for line in self._log()[self._lines_before :]:
            recogniser.feed(line)
        return recogniser.warnings

    def stop(self) -> None:
        """Unload what was loaded, and disconnect."""
        if self._client is not None and self.loaded is not None:
            try:
                self.unload()
            except HostError:
                self.loaded = None
        self._disconnect()
