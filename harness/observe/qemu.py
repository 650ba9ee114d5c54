"""Real QEMU on a host, with KVM: started, looked at and driven over QMP, its memory shared with the host.

L1's memory is a file there (4 KiB pages in /dev/shm, or 2 MiB pages in hugetlbfs), mapped shared by QEMU: the host
writes a batch into it before the first instruction and reads it back when L1 has powered itself off. Then the same
QEMU is reset for the next batch. What crosses the emulated wire and how often it is asked is what a short batch costs:
QEMU's standard streams are its monitor, and only what is new of a batch is written or read.
"""

from __future__ import annotations

import contextlib
import queue
import re
import shlex
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from elftools.elf.elffile import ELFFile

from harness import protocol
from harness.errors import GuestError, HostError
from harness.hosts import BOARD, FILES, Board, Host, Remote, Warn
from harness.observe.memory import Memory
from harness.observe.qmp import Command, Monitor, QmpEvent
from kvmodel.question.vector import Machine

BINARY: Final = "qemu-system-x86_64"
PAGE: Final = 4096  # bytes
SERIAL: Final = f"{FILES}/l1-serial"
SHM: Final = "/dev/shm/kvmirror-l1"
HUGE: Final = "/mnt/kvmirror-huge"
HUGE_PAGE: Final = 2 << 20  # bytes
PID_FILE: Final = f"{FILES}/qemu.pid"
START_TIMEOUT: Final = 60.0  # seconds from QEMU's start to its monitor
RESET_TIMEOUT: Final = 20.0  # seconds
LOOK_PERIOD: Final = 4.0  # seconds between looks at how far a batch is
STALL: Final = 20.0  # seconds of wall time without a step to the next vector
MONITORED: Final = ("-qmp", "stdio", "-S", "-action", "shutdown=pause,reboot=shutdown,panic=pause")
UNATTENDED: Final = ("-action", "shutdown=poweroff,reboot=shutdown,panic=shutdown")
HYPERV: Final = ("hv-relaxed", "hv-vapic", "hv-vpindex", "hv-evmcs")  # hv-evmcs needs hv-vapic
PROPERTIES: Final = ("vmx-mbec", "vmx-ept-execonly", "hv-evmcs")  # what machines differ in; L1 reads the rest
COUNTERS: Final = (
    "exits", "pf_fixed", "pf_spurious", "pf_taken", "pf_fast", "pf_emulate", "pf_mmio_spte_created", "nested_run",
    "mmio_exits", "insn_emulation", "insn_emulation_fail", "invlpg", "irq_exits", "io_exits", "halt_exits",
)  # fmt: skip

CALLS: Final = ("GUEST_CRASHLOADED", "GUEST_PANICKED")  # how L1 and L2 call the host

_UNSUPPORTED = re.compile(r"warning: .*(?:doesn't support|lacks) requested feature.*?: (?P<feature>.+)")


class End(Enum):
    """The value says how L1's run ended."""

    POWEROFF = "L1 powered itself off"
    RESET = "L1 reset itself (a triple fault, or it asked for it)"
    PANICKED = "L1 told QEMU that it panicked"
    INTERNAL_ERROR = "KVM gave QEMU an internal error"
    HANG = "L1 stood still"
    DEADLINE = "L1 ran out of time"
    DIED = "QEMU ended"


@dataclass(frozen=True, slots=True)
class BatchRun:
    """The record is of one run of a batch.

    ``memory`` is the batch as it was left (empty when it could not be read), ``current`` and ``state`` its header's
    words as last seen, ``warnings`` the host kernel's WARNs meanwhile.
    """

    end: End
    detail: str
    seconds: float
    memory: bytes
    current: int
    state: int
    warnings: tuple[Warn, ...]


@dataclass(slots=True)
class Provenance:
    """QMP says this of the QEMU."""

    version: str = ""
    package: str = ""
    kvm: bool = False
    cpu_model: str = ""
    properties: dict[str, object] = field(default_factory=dict)  # PROPERTIES, of the virtual CPU as it is
    expanded: dict[str, object] = field(default_factory=dict)  # all of query-cpu-model-expansion
    refused: list[str] = field(default_factory=list)  # features asked for that KVM does not have
    start_seconds: float = 0.0


def cpu_option(machine: Machine, model: str = "host") -> str:
    """The function gives the -cpu option: a named model (or ``host``) and what ``machine`` offers L1."""

    def switch(name: str, on: bool) -> str:
        return f"{name}={'on' if on else 'off'}"

    words = [model]
    if model != "host":
        words.append("host-phys-bits=on")
    words += ["vmx=on", switch("vmx-mbec", machine.mbec_offered), switch("vmx-ept-execonly", machine.execonly_offered)]
    if machine.env.taken is not None:
        words.append(switch(machine.env.taken.name, False))
    if machine.evmcs_offered:
        words += [f"{name}=on" for name in HYPERV]
    return ",".join(words)


def arguments(
    machine: Machine,
    *,
    kernel: str,
    memory: int,
    model: str = "host",
    serial: str = "",
    monitored: bool = True,
    board: Board = BOARD,
) -> list[str]:
    """The function gives QEMU's command line. ``kernel`` is a path on the host, ``memory`` in bytes.

    With ``monitored`` it waits for its monitor's word and stands still at L1's end; else it runs and ends with L1.

    Raises HostError for an unknown backing.
    """
    if machine.env.backing not in ("4k", "2m"):
        raise HostError(f"L1 memory of {machine.env.backing} pages cannot be had: only 4k and 2m can")
    path = SHM if machine.env.backing == "4k" else f"{HUGE}/l1"
    return [
        BINARY, "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none",
        "-accel", "kvm",
        "-cpu", cpu_option(machine, model),
        *board.arguments,
        "-object", f"memory-backend-file,id=l1,size={memory},mem-path={path},share=on,prealloc=off",
        "-m", f"{memory >> 20}",
        "-smp", "1",
        "-serial", f"file:{serial}" if serial else "none",
        "-kernel", kernel,
        *(MONITORED if monitored else UNATTENDED),
    ]  # fmt: skip


def end_leftovers(host: Host) -> None:
    """What a Qemu on ``host`` left running is ended, by the process id it noted."""
    host.run(f"kill -9 $(cat {PID_FILE}) 2>/dev/null; rm -f {PID_FILE}; sleep 0.1", timeout=20)


class Qemu:
    """This is one QEMU on ``host``; a context manager.

    ``kernel`` is the probe's ELF file here; it is sent once per host. ``memory`` in bytes.
    """

    def __init__(
        self,
        host: Host,
        machine: Machine,
        kernel: Path,
        *,
        memory: int = protocol.L1_MEMORY,
        model: str = "host",
    ) -> None:
        self.host = host
        self.machine = machine
        self.kernel = kernel
        self.memory = memory
        self.model = model
        self.provenance = Provenance()
        self._path = SHM if machine.env.backing == "4k" else f"{HUGE}/l1"
        self._memory = Memory(host, self._path)
        self._remote: Remote | None = None
        self._monitor: Monitor | None = None
        self._fresh = True  # not one instruction has run since the start or the last reset
        self._batch = b""  # what L1's memory holds, as far as it was written or read

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.quit()

    # starting and looking

    def start(self) -> None:
        """Start QEMU, stopped before its first instruction, and negotiate. GuestError with QEMU's own words."""
        began = time.monotonic()
        there = self.host.deliver(self.kernel)
        argv = arguments(
            self.machine,
            kernel=there,
            memory=self.memory,
            model=self.model,
            serial=SERIAL,
            board=self.host.board,
        )
        # The shell stays to clean up behind a QEMU that ended well; of one that did not, the memory is still wanted.
        script = (
            f"{self._memory_script()}; exec 3<&0; {shlex.join(argv)} <&3 & echo $! >{PID_FILE}; wait $!; s=$?; "
            f"[ $s -ne 0 ] || {{ {self._free_script()}; }}; exit $s"
        )
        self._remote = self.host.spawn("sh -c " + shlex.quote(script))
        try:
            self._attach()
            self._query()
        except BaseException:
            self.quit()
            raise
        self.provenance.start_seconds = time.monotonic() - began

    def _memory_script(self) -> str:
        """Makes L1's memory; the shell ends with the reason where that fails."""
        if self.machine.env.backing == "2m":
            pages, others = self.memory // HUGE_PAGE, self.host.huge_pages
            script = (
                f"mkdir -p {HUGE}; grep -q ' {HUGE} ' /proc/mounts || mount -t hugetlbfs -o pagesize=2M none {HUGE}; "
                f"rm -f {self._path}; echo {pages + others} >/proc/sys/vm/nr_hugepages; "
                f"[ $(cat /proc/sys/vm/nr_hugepages) -ge {pages + others} ] || "
                f"{{ echo no {pages} free huge pages >&2; exit 1; }}"
            )
        else:
            script = f"echo {self.host.huge_pages} >/proc/sys/vm/nr_hugepages"
        return f"{script}; rm -f {self._path}; truncate -s {self.memory} {self._path} || exit 1"

    def _free_script(self) -> str:
        """Gives L1's memory back."""
        return f"rm -f {self._path} {PID_FILE}; echo {self.host.huge_pages} >/proc/sys/vm/nr_hugepages"

    def _attach(self) -> None:
        """Wait for the monitor's greeting."""
        assert self._remote is not None
        remote = self._remote

        def alive() -> None:
            self.host.check()
            if remote.status is not None:
                raise GuestError(f"it ended with status {remote.status}")

        try:
            self._monitor = Monitor(remote.socket(), timeout=START_TIMEOUT, alive=alive)
        except GuestError as error:
            raise GuestError(f"QEMU did not start: {self._words() or error}") from error
        self._monitor.alive = self.host.check

    def _query(self) -> None:
        told = self.provenance
        told.cpu_model = cpu_option(self.machine, self.model)
        asked = {name: value == "on" for name, _, value in (w.partition("=") for w in told.cpu_model.split(",")[1:])}
        expand = {"type": "full", "model": {"name": self.model, "props": asked}}
        version, kvm, full, cpus, state = self.commands(
            ("query-version", None),
            ("query-kvm", None),
            ("query-cpu-model-expansion", expand),
            ("query-cpus-fast", None),
            ("query-status", None),
        )
        numbers = version["qemu"]
        told.version = f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}"
        told.package = version["package"]
        told.kvm = bool(kvm["present"] and kvm["enabled"])
        if not told.kvm:
            raise GuestError("QEMU runs without KVM: are the modules loaded?")
        told.expanded = dict(full["model"].get("props", {}))
        if "vmx-mbec" not in told.expanded:
            raise GuestError(f"QEMU {told.version} does not know the CPU property vmx-mbec: a newer one is needed")
        cpu = cpus[0]["qom-path"]
        known = [name for name in PROPERTIES if name in told.expanded]  # hv-evmcs needs KVM's Hyper-V part
        values = self.commands(*(("qom-get", {"path": cpu, "property": name}) for name in known))
        told.properties = dict(zip(known, values, strict=True))
        told.refused = _UNSUPPORTED.findall(self._remote.errors() if self._remote else "")
        if state["status"] not in ("prelaunch", "paused"):
            raise GuestError(f"QEMU is {state['status']} before it was told to run")

    @property
    def mbec(self) -> bool:
        """Whether the virtual CPU has vmx-mbec after KVM had its say."""
        return bool(self.provenance.properties.get("vmx-mbec"))

    def command(self, name: str, args: Mapping[str, object] | None = None) -> Any:
        """The function gives a QMP command's return value.

        Raises GuestError when it is refused; when QEMU has died, with its last words.
        """
        return self.commands((name, args))[0]

    def commands(self, *asked: Command) -> list[Any]:
        """The function gives the return values of several QMP commands sent at once, in order.

        Raises GuestError as ``command`` does.
        """
        if self._monitor is None:
            raise GuestError(f"QEMU does not run: {asked[0][0]} cannot be asked")
        try:
            return self._monitor.commands(asked)
        except GuestError as error:
            self.host.check()
            if self._remote is not None and self._remote.status is not None:
                raise GuestError(f"QEMU ended with status {self._remote.status}: {self._words()}") from error
            raise

    def status(self) -> str:
        """The text is QEMU's run state, as query-status gives it."""
        return str(self.command("query-status")["status"])

    def _words(self) -> str:
        """QEMU's last words."""
        return self._remote.errors().strip()[-800:] if self._remote else ""

    def counters(self, names: Iterable[str] = COUNTERS) -> dict[str, int]:
        """The function gives KVM's counters of the vCPU, by name, since QEMU's start. Those that this kernel lacks are
        left out. Those that this kernel lacks are left out.
        """
        known = set(names)
        out: dict[str, int] = {}
        for entry in self.command("query-stats", {"target": "vcpu"}):
            for stat in entry["stats"]:
                if stat["name"] in known and isinstance(stat["value"], int):
                    out[stat["name"]] = out.get(stat["name"], 0) + stat["value"]
        return out

    def serial(self) -> str:
        """L1 wrote this to its serial port."""
        return self.host.get(SERIAL).decode("utf-8", "replace")

    # memory

    def _put(self, batch: bytes) -> None:
        """Make L1's memory hold the batch: of one that goes on behind a death only the header is new."""
        head = protocol.HEADER.size
        if self._batch[head:] == batch[head:]:
            self._memory.write(batch[:head])
        elif self._batch:
            self._memory.write(batch)
        else:  # the memory of a new QEMU is all zero
            self._memory.write(batch.rstrip(b"\0") or batch[:head])
        self._batch = batch

    def _take(self) -> bytes:
        """The batch as L1 left it: the header, and the observations of the records that it was at, are read back."""
        size = protocol.HEADER.size
        head = self._memory.read(min(len(self._batch), size))
        first = last = len(head)
        if len(head) == size:
            fields = protocol.HEADER.unpack(head)
            at, start, current = (fields[name] for name in ("observations", "start", "current"))
            assert isinstance(at, int) and isinstance(start, int) and isinstance(current, int)
            begin, end = (at + n * protocol.OBSERVATION.size for n in (start, current + 1))
            if size <= begin < end <= len(self._batch):  # else it is none of ours: what L1 made of it is unknown
                first, last = begin, end
        seen = self._memory.read(last - first, first)
        self._batch = head + self._batch[len(head) : first] + seen + self._batch[last:]
        return self._batch

    # running

    def run(
        self,
        batch: bytes,
        *,
        deadline: float = 120.0,
        stall: float = STALL,
        called: Callable[[int, int], bool] | None = None,
    ) -> BatchRun:
        """A batch is run from power-on to L1's end.

        ``deadline`` and ``stall`` in seconds of wall time: all of it, and without a step of the header's ``current`` or
        ``state`` (QEMU's firmware counts as the first step). QEMU stands stopped (or is gone: ``End.DIED``) afterwards
        and takes the next batch. ``called`` carries out what L1 calls its host for, call and operand, and says whether
        it could.

        Raises HostError when the host itself dies.
        """
        self._called = called
        if not self._fresh:
            self._reset()
        self._put(batch)
        warned = len(self.host.warnings())
        self._drop_events()
        began = time.monotonic()
        self._fresh = False
        # The reboot action must not have turned our own reset into a shutdown; L1's is one.
        self.commands(("set-action", {"reboot": "shutdown"}), ("cont", None))
        end, detail = self._wait(began, deadline, stall)
        seconds = time.monotonic() - began
        if end in (End.HANG, End.DEADLINE):
            self.command("stop")
        memory = self._take()
        header = protocol.HEADER.unpack(memory) if len(memory) >= protocol.HEADER.size else {}
        current, state = header.get("current", 0), header.get("state", 0)
        assert isinstance(current, int) and isinstance(state, int)
        return BatchRun(end, detail, seconds, memory, current, state, tuple(self.host.warnings()[warned:]))

    def _wait(self, began: float, deadline: float, stall: float) -> tuple[End, str]:
        assert self._monitor is not None and self._remote is not None
        moved = looked = began
        last = ""
        while True:
            try:
                event: QmpEvent | None = self._monitor.events.get(timeout=0.1)
            except queue.Empty:
                event = None
            if event is not None and (found := self._meaning(event)) is not None:
                return found
            now = time.monotonic()
            if event is not None and event.name in CALLS:  # what the host had to do for it is no stall of L1's
                moved = now
            if self._remote.status is not None:
                self.host.check()
                return End.DIED, f"status {self._remote.status}: {self._words()}"
            self.host.check()
            if now - looked > LOOK_PERIOD:
                looked = now
                if (seen := self._progress()) != last:
                    last, moved = seen, now
            if now - began > deadline:
                return End.DEADLINE, f"{deadline:.0f} s; current and state: {last or 'unknown'}"
            if now - moved > stall:
                return End.HANG, f"{stall:.0f} s without a step; current and state: {last or 'unknown'}"

    def _meaning(self, event: QmpEvent) -> tuple[End, str] | None:
        """What an event says of the run's end; None when it does not."""
        if event.name == "SHUTDOWN":
            reason = str(event.data.get("reason", ""))
            ends = {"guest-shutdown": End.POWEROFF, "guest-reset": End.RESET, "guest-panic": End.PANICKED}
            return ends.get(reason, End.DIED), reason
        if event.name == "GUEST_CRASHLOADED":
            self._carry_out()
            return None
        if event.name == "GUEST_PANICKED":
            if not self._carry_out():
                return End.PANICKED, str(dict(event.data))
            self.command("cont")
            return None
        if event.name == "STOP" and (status := self.status()) == "internal-error":
            return End.INTERNAL_ERROR, f"{status}: {self._words()}"
        return None

    def _carry_out(self) -> bool:
        """L1 waits at an OP_HOST record, or L2 stands still in the middle of an OP_RUN: what is asked for is done.

        The function says whether it was such a call, not whether it could be carried out: that the probe is told.
        """
        index = struct.unpack("<I", self._memory.read(4, protocol.HEADER.offset("current")))[0]
        vectors = struct.unpack("<Q", self._memory.read(8, protocol.HEADER.offset("vectors")))[0]
        record = protocol.VECTOR.unpack(self._memory.read(protocol.VECTOR.size, vectors + index * protocol.VECTOR.size))
        call, operand = record["leaf"], record["upper"]
        assert isinstance(call, int) and isinstance(operand, int)
        if record["kind"] != protocol.CONSTANTS["KIND_STEP"]:
            return False
        if record["access"] == protocol.CONSTANTS["OP_RUN"]:
            call, operand = protocol.CONSTANTS["HOST_SAVE"], 0
        could = self._called is not None and self._called(call, operand)
        at = protocol.HEADER.offset("carried_out")
        self._memory.write(struct.pack("<I", 0 if could else 1), protocol.HEADER.offset("refused"))
        self._memory.write(struct.pack("<I", index + 1), at)
        return True

    @property
    def memory_file(self) -> str:
        """This is the file on the host that is L1's memory."""
        return self._memory.path

    @property
    def image(self) -> tuple[int, int]:
        """QEMU writes these pages of L1's memory at each reset, the probe and its variables: first page, number."""
        with self.kernel.open("rb") as file:
            parts = [part.header for part in ELFFile(file).iter_segments("PT_LOAD")]
        first = min(part.p_paddr for part in parts) // PAGE
        return first, -(-max(part.p_paddr + part.p_memsz for part in parts) // PAGE) - first

    def _progress(self) -> str:
        """The header's ``current`` and ``state`` as they are in L1's memory now."""
        return " ".join(
            str(word) for word in struct.unpack("<II", self._memory.read(8, protocol.HEADER.offset("current")))
        )

    def _reset(self) -> None:
        """Back to before the first instruction, of a QEMU that stands stopped."""
        self._drop_events()
        self.commands(("set-action", {"reboot": "reset"}), ("system_reset", None))
        self._await("RESET")
        self._fresh = True

    def _drop_events(self) -> None:
        assert self._monitor is not None
        with contextlib.suppress(queue.Empty):
            while True:
                self._monitor.events.get_nowait()

    def _await(self, name: str) -> None:
        """Wait for the event ``name``. GuestError when it does not come."""
        assert self._monitor is not None
        deadline = time.monotonic() + RESET_TIMEOUT
        while time.monotonic() < deadline:
            self.host.check()
            with contextlib.suppress(queue.Empty):
                if self._monitor.events.get(timeout=0.2).name == name:
                    return
        raise GuestError(f"QEMU gave no {name} event within {RESET_TIMEOUT:.0f} s of a reset; it is {self.status()}")

    def quit(self) -> None:
        """QEMU is ended and L1's memory freed. It never raises for a QEMU or host already gone. Never raises for a QEMU
        or host already gone.
        """
        self._memory.close()
        with contextlib.suppress(HostError, GuestError):
            if self._monitor is not None and self._remote is not None and self._remote.status is None:
                with contextlib.suppress(GuestError):
                    self._monitor.command("quit", timeout=10)
                deadline = time.monotonic() + 10
                while self._remote.status is None and time.monotonic() < deadline:
                    time.sleep(0.02)
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._remote is not None:
            if self._remote.status != 0:
                with contextlib.suppress(HostError):
                    end_leftovers(self.host)
                    self.host.run(self._free_script())
            self._remote.stop()
            self._remote = None
