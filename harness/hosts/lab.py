"""Lab machines as a run uses them: one machine a worker, all of them of one kind of CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import HostError, InputError
from harness.hosts.address import Address, parse_all
from harness.hosts.ssh import QEMU, SshHost
from kvmodel.cpu import Cpu


@dataclass(slots=True)
class Lab:
    """What the user says of the machines, and which worker has which."""

    machines: list[Address]
    key: Path | None = None
    known_hosts: Path | None = None
    qemu: str = QEMU
    _taken: dict[int, Address] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, hosts: str, key: Path | None, known_hosts: Path | None, qemu: str | None) -> Lab:
        """From the command line. InputError for what is no address and for a key that is not there."""
        for option, path in (("--host-key", key), ("--known-hosts", known_hosts)):
            if path is not None and not path.is_file():
                raise InputError(f"{option} {path}: there is no such file")
        return cls(parse_all(hosts), key, known_hosts, qemu or QEMU)

    def machine(self, address: Address, release: str | None = None, memio: Path | None = None) -> SshHost:
        """One of the machines, not connected yet."""
        return SshHost(
            str(address), key=self.key, known_hosts=self.known_hosts, release=release, qemu=self.qemu, memio=memio
        )

    def mine(self, release: str, memio: Path) -> SshHost:
        """The calling thread's machine: the same one each time it asks, and nobody else's."""
        with self._lock:
            me = threading.get_ident()
            if me not in self._taken:
                free = [a for a in self.machines if a not in self._taken.values()]
                if not free:
                    raise HostError(f"{len(self.machines)} lab machines for more workers: lower --jobs")
                self._taken[me] = free[0]
            return self.machine(self._taken[me], release, memio)

    def release(self) -> None:
        """Every machine is free again: the threads that had one have ended."""
        with self._lock:
            self._taken.clear()

    @contextmanager
    def _looked_at(self, address: Address) -> Iterator[SshHost]:
        host = self.machine(address)
        host.connect_only()
        try:
            yield host
        finally:
            host.disconnect()

    def cpu(self) -> Cpu:
        """The CPU of the machines; InputError where they differ in what a guest can see."""
        found: dict[Cpu, Address] = {}
        for address in self.machines:
            with self._looked_at(address) as host:
                for finding in host.examine():
                    if not finding.ok and finding.what in ("root", "CPU", "VMX", "MBEC"):
                        raise HostError(f"{host.name}: {finding.what}: {finding.found}; {finding.mend}")
                found.setdefault(host.cpu(), address)
        if len(found) > 1:
            raise InputError(
                f"{' and '.join(map(str, found.values()))} have CPUs that differ ({', '.join(map(str, found))}): "
                "one run is of one kind of CPU"
            )
        return next(iter(found))
