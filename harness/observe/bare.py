"""The silicon voice: a batch on the bare emulated CPU, without Linux or KVM under the probe.

The batch goes in as a Multiboot module; header and observations come out through port 0xE9, which the emulator
copies byte for byte to its standard output.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.build import make_iso, render
from harness.errors import GuestError, HostError
from harness.hosts import BIOS, IPS, VGABIOS, Model, models
from harness.observe import batch as guest
from harness.process import programs
from kvmodel.question.program import ProgramVector
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import AccessVector, CapsVector, EntryVector, Mbec, MsrVector, Vector
from kvmodel.question.vm_entry import VmEntryVector
from kvmodel.question.vm_exit import VmExitVector

MARK: Final = b"KVMIROUT"  # images/probe/platform.c
MEMORY_MIB: Final = 1024  # L1 is the machine itself
OBSERVING: Final = "port_e9_hack: enabled=1\ncom1: enabled=1, mode=file, dev={serial}\n"


def askable(vector: Vector) -> bool:
    """Whether the bare CPU can be asked: no host, no KVM client, and nothing that QEMU would take away."""
    if isinstance(vector, SequenceVector):
        return all(askable(turn.access) for turn in vector.turns)
    if isinstance(vector, ProgramVector):
        return vector.env == "std" and not vector.calls_host
    if not isinstance(vector, AccessVector | EntryVector | MsrVector | CapsVector | VmEntryVector | VmExitVector):
        return False
    return vector.mbec is not Mbec.NA and vector.xo and not vector.ev and vector.env == "std"


def had(header: guest.Header, vector: Vector) -> bool:
    """Whether the CPU that ``header`` is of has what the vector's guest switches on: without it nothing is asked."""
    match vector:
        case SequenceVector():
            return all(had(header, turn.access) for turn in vector.turns)
        case AccessVector():
            return (header.smep or not vector.smep) and (header.smap or not vector.smap)
        case _:
            return True


def frame(stream: bytes) -> bytes:
    """The function gives the payload in a bare machine's output.

    Raises GuestError when it is missing, cut short or damaged.
    """
    at = stream.find(MARK)
    if at < 0:
        raise GuestError("the bare machine ended without observations: the probe never came to the end of its batch")
    at += len(MARK)
    length = int.from_bytes(stream[at : at + 8], "little")
    payload = stream[at + 8 : at + 8 + length]
    told = stream[at + 8 + length : at + 16 + length]
    if len(payload) < length or len(told) < 8:
        raise GuestError(f"the bare machine's observations were cut short: {len(payload)} of {length} bytes")
    if sum(payload) != int.from_bytes(told, "little"):
        raise GuestError("the bare machine's observations are damaged: their sum does not fit; run it again")
    return payload


def run(
    bochs: Path,
    probe: Path,
    vectors: Sequence[Vector],
    *,
    flags: Sequence[int] | None = None,
    deadline: int = 0,
    model: Model = models.USUAL,
    timeout: float = 600,
) -> guest.Batch:
    """The ``vectors`` are run on the emulator ``bochs`` by the Multiboot image ``probe``.

    ``flags`` and ``deadline`` (microseconds of guest time) as in ``guest.pack``; ``timeout`` in seconds of wall time.

    Raises HostError, with the emulator's last words, when it gave no observations.
    Raises GuestError when they are damaged.
    """
    return run_batch(bochs, probe, guest.pack(vectors, flags=flags, deadline=deadline), model, timeout)


def run_batch(bochs: Path, probe: Path, data: bytes, model: Model = models.USUAL, timeout: float = 600) -> guest.Batch:
    """The function does the same for a batch's bytes.

    Raises HostError and GuestError as ``run`` does.
    """
    with tempfile.TemporaryDirectory(prefix="kvmirror-bare-") as name:
        folder = Path(name)
        batch = folder / "batch.bin"
        batch.write_bytes(data)
        menu = render("isolinux.cfg.j2", multiboot=("probe.elf", "batch.bin"), command_line="")
        make_iso(folder, {"probe.elf": probe, "batch.bin": batch}, menu, ("ldlinux.c32", "mboot.c32", "libcom32.c32"))
        image = folder / "image.iso"
        serial, log = folder / "serial", folder / "log"
        rc = folder / "bochsrc"
        text = render(
            "bochsrc.j2",
            memory_mib=MEMORY_MIB,
            bios=BIOS,
            vgabios=VGABIOS,
            cpu_model=model.emulated_as,
            ips=IPS,
            slirp_conf=None,
            iso=image,
            memory=(),
            console="/dev/null",
            log=log,
        )
        rc.write_text("".join(line for line in text.splitlines(True) if not line.startswith("com1:")))
        with rc.open("a") as file:
            file.write(OBSERVING.format(serial=serial))
        # a power-off from inside ends the emulator with status 1
        done = programs.run(
            [bochs, "-q", "-f", rc], cwd=folder, timeout=timeout, check=False, error=HostError, env={"DISPLAY": ""}
        )
        try:
            payload = frame(done.data)
        except GuestError as error:
            told = [p.read_text(errors="replace").strip()[-600:] for p in (serial, log) if p.exists()]
            raise HostError(f"{error}\n" + "\n".join(told)) from error
    return guest.unpack_emitted(payload)


def have_bios() -> bool:
    """Whether this machine has the firmware the emulator boots with (packages bochsbios and vgabios)."""
    return BIOS.exists() and VGABIOS.exists() and shutil.which("xorriso") is not None
