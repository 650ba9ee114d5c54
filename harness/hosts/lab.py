"""Lab machines as a run uses them: one machine a worker, all of them of one kind of CPU."""

from __future__ import annotations

import argparse
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from harness.errors import HostError, InputError
from harness.hosts.address import Address, parse_all
from harness.hosts.booted import BootCommands, KernelImage
from harness.hosts.coordinator import Coordinator
from harness.hosts.cpuinfo import Capabilities
from harness.hosts.place import HeldPlace, PlaceHost
from harness.hosts.ssh import QEMU, SshHost
from harness.hosts.tags import Tags, is_labgrid, parse_tags
from harness.process import PROGRESS
from kvmodel.cpu import Cpu

M = TypeVar("M", Address, HeldPlace)


@dataclass(frozen=True, slots=True)
class Login:
    """The login says how one logs in to the machines, what QEMU is called there, what L1 is made of (None: the best
    that QEMU has), and by what the lab boots them.
    """

    key: Path | None = None
    known_hosts: Path | None = None
    qemu: str = QEMU
    l1_machine: str | None = None
    boot: BootCommands | None = None

    @property
    def options(self) -> dict[str, Any]:
        """These are the arguments of ``SshHost`` by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class Lab(ABC):
    """The lab has what a run knows of the machines, and which worker has which."""

    @staticmethod
    def of(
        hosts: str,
        key: Path | None,
        known_hosts: Path | None,
        qemu: str | None,
        coordinator: str | None = None,
        wait: float = 0,
        l1_machine: str | None = None,
        boot: BootCommands | None = None,
    ) -> Lab:
        """The function makes it from the command line.

        Raises InputError for what is no address and for a key that is not there.
        """
        for option, path in (("--host-key", key), ("--known-hosts", known_hosts)):
            if path is not None and not path.is_file():
                raise InputError(f"{option} {path}: there is no such file; name one that is there")
        login = Login(key, known_hosts, qemu or QEMU, l1_machine, boot)
        if is_labgrid(hosts):
            return PlacesLab(parse_tags(hosts), login, coordinator, wait)
        return AddressesLab(parse_all(hosts), login)

    @classmethod
    def chosen(cls, args: argparse.Namespace) -> Lab | None:
        """The function makes it from the options of ``harness.cli.common.add_host``; None where they name no host.

        Raises what ``of`` raises.
        """
        if not getattr(args, "host", None):
            return None
        return cls.of(
            args.host,
            args.host_key,
            args.known_hosts,
            args.host_qemu,
            args.coordinator,
            args.place_wait,
            args.l1_machine,
            BootCommands.of(args.boot_command, args.boot_restore_command),
        )

    @abstractmethod
    def want(self, most: int | None) -> int:
        """The function says how many machines there are; no more than ``most`` are wanted."""

    @abstractmethod
    def plans(self) -> list[str]:
        """The lines say how the machines are reached, in words, for a run that is not made."""

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The function gives the machines that the run has."""

    @abstractmethod
    def capabilities(self) -> Capabilities:
        """The function gives what the machines' CPU says it can do, by the first of them.

        Raises InputError when they differ in what a guest can see.
        Raises HostError when one of them cannot run KVM.
        """

    @abstractmethod
    def open(self, release: str | None = None) -> Iterator[SshHost]:
        """The function gives each machine, not connected yet."""

    @abstractmethod
    def watched(self) -> SshHost:
        """The function gives the one machine on which somebody's guest is watched, not connected yet.

        Raises InputError when it is several.
        """

    @abstractmethod
    def mine(self, release: str, memio: Path, image: KernelImage | None = None) -> SshHost:
        """One machine is the thread's own, the same each time until ``release``.

        Raises HostError when more threads ask than there are machines.
        """

    def replace(self) -> bool:
        """The thread's own machine is lost for good; another one is the thread's from now on: True."""
        return False

    @abstractmethod
    def release(self) -> None:
        """Every machine is free for other threads again: those that had one have ended."""


class _Shared(Lab, Generic[M]):
    """Machines that are each one thread's."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self._taken: dict[int, M] = {}
        self._lock = threading.Lock()

    @property
    @abstractmethod
    def machines(self) -> Sequence[M]:
        """The machines that the run has."""

    @abstractmethod
    def _machine(
        self, machine: M, release: str | None = None, memio: Path | None = None, image: KernelImage | None = None
    ) -> SshHost: ...

    @property
    def names(self) -> list[str]:
        return [str(machine) for machine in self.machines]

    def open(self, release: str | None = None) -> Iterator[SshHost]:
        yield from (self._machine(machine, release) for machine in self.machines)

    def mine(self, release: str, memio: Path, image: KernelImage | None = None) -> SshHost:
        with self._lock:
            me = threading.get_ident()
            if me not in self._taken:
                free = [one for one in self.machines if one not in self._taken.values()]
                if not free:
                    raise HostError(f"{len(self.machines)} lab machines for more workers: lower --jobs")
                self._taken[me] = free[0]
            return self._machine(self._taken[me], release, memio, image)

    def release(self) -> None:
        with self._lock:
            self._taken.clear()

    def capabilities(self) -> Capabilities:
        return _one_kind({machine: self._told_by(machine) for machine in self.machines})

    def _told_by(self, machine: M) -> Capabilities:
        host = self._machine(machine)
        host.connect_only()
        try:
            return _examined(host)
        finally:
            host.disconnect()


def _examined(host: SshHost) -> Capabilities:
    for finding in host.examine():
        if not finding.ok and finding.what in ("root", "CPU", "VMX", "MBEC"):
            raise HostError(f"{host.name}: {finding.what}: {finding.found}; {finding.mend}")
    return host.capabilities()


def _one_kind(told: dict[M, Capabilities]) -> Capabilities:
    """What the first told, where all have one kind of CPU; InputError where a guest can see that they differ."""
    kinds = {found.cpu(): machine for machine, found in reversed(list(told.items()))}
    if len(kinds) > 1:
        raise InputError(
            f"{' and '.join(map(str, kinds.values()))} have CPUs that differ ({', '.join(map(str, kinds))}): "
            "one run is of one kind of CPU: name machines, or tags, that tell them apart"
        )
    return next(iter(told.values()))


class AddressesLab(_Shared[Address]):
    """The lab is of machines that the user names."""

    def __init__(self, machines: Sequence[Address], login: Login) -> None:
        super().__init__(login)
        self._machines = machines

    @property
    def machines(self) -> Sequence[Address]:
        """The function gives the machines by address."""
        return self._machines

    def watched(self) -> SshHost:
        """The function gives the machine of the one address, as ``Lab`` has it.

        Raises InputError when it is several.
        """
        if len(self._machines) > 1:
            raise InputError(f"{', '.join(self.names)}: one machine is watched at a time; name the guest's")
        return self._machine(self._machines[0])

    def want(self, most: int | None) -> int:
        """The function says how many of the addresses are used, as ``Lab`` has it."""
        return min(most or len(self._machines), len(self._machines))

    def plans(self) -> list[str]:
        """The lines say how each address is reached, as ``Lab`` has it."""
        return [f"ssh -p {m.port} {m.user}@{m.host}" for m in self._machines]

    def _machine(
        self, machine: Address, release: str | None = None, memio: Path | None = None, image: KernelImage | None = None
    ) -> SshHost:
        return SshHost(str(machine), release=release, memio=memio, image=image, **self.login.options)


class PlacesLab(_Shared[HeldPlace]):
    """The lab is of the places of a lab that have ``tags``; they are acquired when the first of them is needed, as many
    as are free then.

    ``harness.hosts.release_all`` gives them back, at the latest when the process ends.
    """

    def __init__(self, tags: Tags, login: Login, coordinator: str | None, wait: float) -> None:
        super().__init__(login)
        self.tags = tags
        self.wait = wait
        self._most = 1  # a command that asks one host only wants one place
        self._coordinator = Coordinator(coordinator)
        self._places: list[HeldPlace] | None = None
        self._kind: Cpu | None = None  # what the run's places have, once they were asked
        self._opened = False

    def _session(self) -> Coordinator:
        if not self._opened:
            self._coordinator.open()
            self._opened = True
        return self._coordinator

    @property
    def machines(self) -> Sequence[HeldPlace]:
        """The function gives the machines of the places that are held."""
        if self._places is None:
            session = self._session()
            found = session.acquire(self.tags, self._most, self.wait)
            self._places = [HeldPlace(session, name) for name in found]
            PROGRESS.say(f"acquired {', '.join(map(str, self._places))}")
        return self._places

    def watched(self) -> SshHost:
        """The function gives the machine of the one place, as ``Lab`` has it. A place that this user has already is
        neither acquired nor given back; a free one is, meanwhile.

        Raises InputError when it is several.
        """
        session = self._session()
        name, *others = session.matching(self.tags)
        if others:
            raise InputError(
                f"labgrid has {', '.join((name, *others))} with {self.tags}: one machine is watched at a time; add "
                f"name={name}, or another"
            )
        return self._machine(HeldPlace(session, name) if session.holds(name) else self.machines[0])

    def want(self, most: int | None) -> int:
        """The function says how many places are used, as ``Lab`` has it."""
        there = len(self._session().matching(self.tags))
        self._most = min(most or there, there)
        return self._most

    def plans(self) -> list[str]:
        """The lines say how the places are reached, as ``Lab`` has it."""
        at = self._session().address
        return [f"labgrid-client -x {at} -p {name} acquire" for name in self._session().matching(self.tags)]

    def _machine(
        self,
        machine: HeldPlace,
        release: str | None = None,
        memio: Path | None = None,
        image: KernelImage | None = None,
    ) -> PlaceHost:
        return PlaceHost(machine, release=release, memio=memio, image=image, **self.login.options)

    def capabilities(self) -> Capabilities:
        """As every lab's; a place that does not answer is given back, as long as another one does."""
        found: dict[HeldPlace, Capabilities] = {}
        lost: list[HostError] = []
        for place in list(self.machines):
            try:
                found[place] = self._told_by(place)
            except HostError as error:
                lost.append(error)
                PROGRESS.say(f"{place.name} is left out: {str(error).splitlines()[0]}")
                self._session().release(place.name)
        if not found:
            raise lost[-1]
        self._places = list(found)
        told = _one_kind(found)
        self._kind = told.cpu()
        return told

    def replace(self) -> bool:
        """As every lab's: by a place with the tags that is free now and has the same kind of CPU.

        The lost one is held until then, so that it is not what is had.
        """
        with self._lock:
            lost = self._taken.get(threading.get_ident())
        if lost is None or self._places is None:
            return False
        session, refused = self._session(), [lost.name]
        try:
            while (place := self._free(refused)) is not None:
                if self._fits(place):
                    with self._lock:
                        self._places = [place if one is lost else one for one in self._places]
                        self._taken[threading.get_ident()] = place
                    PROGRESS.say(f"{lost.name} is given back, and {place} is acquired in its stead")
                    return True
                refused.append(place.name)
            return False
        finally:
            for name in refused:
                session.release(name)

    def _free(self, refused: Sequence[str]) -> HeldPlace | None:
        """A place that is acquired now; None where there is none that was not ``refused``."""
        session = self._session()
        try:
            (name,) = session.acquire(self.tags, 1, 0)
            if name in refused:  # somebody had taken it away from this run
                return None
            return HeldPlace(session, name)
        except HostError as error:
            PROGRESS.say(f"no place in its stead: {str(error).splitlines()[0]}")
            return None

    def _fits(self, place: HeldPlace) -> bool:
        """The place's machine comes up and has the run's kind of CPU: True; else it is said why not."""
        try:
            kind = self._told_by(place).cpu()
        except HostError as error:
            PROGRESS.say(f"{place.name} is left out: {str(error).splitlines()[0]}")
            return False
        if self._kind not in (None, kind):
            PROGRESS.say(f"{place.name} is left out: its CPU is another one ({kind})")
            return False
        return True

    def _told_by(self, machine: HeldPlace) -> Capabilities:
        host = self._machine(machine)
        try:
            host.wake()
            return _examined(host)
        finally:
            host.stop()
