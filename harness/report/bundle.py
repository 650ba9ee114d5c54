"""A finding in one archive that shows it again on another machine, with QEMU and a POSIX shell and no Python.

The script in it runs the vector as ``harness.observe.session`` does, reads the observation back and decodes it by
offsets and constants that are written into it from ``harness.protocol``. The archive's bytes depend on its contents
alone.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shlex
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness import protocol
from harness.build import Cache, needs, probe, sha256
from harness.errors import InputError
from harness.findings import Departure, Finding, Run, finding_json
from harness.hosts import BOARD, Board, board
from harness.jsonable import Json
from harness.observe import LIVELOCK_EXITS, client, module_options, qemu
from harness.observe import batch as guest
from harness.questions import Setting, parameters
from harness.results import of_series
from harness.series import Parameter, Patch, Series, mail
from kvmodel.question import tally
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.program import ProgramVector
from kvmodel.question.sequence import SequenceVector
from kvmodel.question.vector import (
    CapsVector,
    ClientSequence,
    ClientVector,
    HostVector,
    LogVector,
    MsrVector,
    NxVector,
    UserCapsVector,
    UserMsrVector,
    Vector,
)
from kvmodel.question.vm_exit import VmExitVector

TEMPLATES: Final = Path(__file__).resolve().parent / "templates"
SCRIPT: Final = "run.sh"
_CODE_BITS: Final = 128  # a UserMsrVector's answer is the longest
_WORD: Final = 32  # bits that any shell computes with


@dataclass(frozen=True, slots=True)
class Binaries:
    """These built files go along: the L1 hypervisor, the user of /dev/kvm, L1's memory seen from the host."""

    probe: Path
    client: Path
    memio: Path

    @classmethod
    def built(cls, cache: Cache) -> Binaries:
        """The function gives them as built here, or from the cache.

        Raises BuildError, with gcc's lines, when one does not compile.
        """
        return cls(probe.build(cache), probe.client(cache), probe.memio(cache))


def _how(vector: Vector) -> str:
    """Which part of the script asks ``vector``; InputError where it cannot be asked there."""
    match vector:
        case NxVector() | HostVector(what="removed"):
            why = "what it shows is in KVM's tracepoints alone"
        case HostVector(what="taccess" | "tspte"):
            why = "it is the text of a tracepoint's format"
        case HostVector(what="reload"):
            why = "the script loads KVM's modules once"
        case HostVector(what="log"):
            why = "what it shows is in the kernel's log alone"
        case LogVector():
            why = "what it shows is in the kernel's log alone"
        case CapsVector() | UserCapsVector():
            why = "the script compares one answer of KVM's, and this is made of several MSRs"
        case VmExitVector():
            why = "the script decodes one answer of a record, and this is made of a row of them"
        case ProgramVector():
            why = "the script decodes one record of L1's, and a program's answer is made of many"
        case HostVector():
            return "host"
        case ClientVector() | ClientSequence() | UserMsrVector():
            return "client"
        case _:
            return "l1"
    raise InputError(f"{vector.id} cannot go into a bundle: {why}; 'kvmirror run' asks it where kvmirror is installed")


def words(value: int) -> list[str]:
    """The function gives ``value`` as the script compares it: 32-bit words, the highest first, in hexadecimal."""
    value &= (1 << _CODE_BITS) - 1
    return [f"0x{value >> at & (1 << _WORD) - 1:x}" for at in range(_CODE_BITS - _WORD, -1, -_WORD)]


def _expected(outcome: Outcome) -> dict[str, Json]:
    """An outcome as the arguments of the script's function ``is``."""
    places = [f"{p.base}:{p.offset}" if p is not None else "-" for p in (outcome.gpa, outcome.gla)]
    call = [outcome.kind.value, str(outcome.number), *places, *words(outcome.code), *words(outcome.defined)]
    return {"text": str(outcome), "call": shlex.join(call)}


def board_of(run: Run, finding: Finding) -> Board:
    """The function gives the board on which ``run`` saw the smallest vector of ``finding``; of an answer that was taken
    from elsewhere, one of the run's.
    """
    said = [(key.cell, str(cell.facts["board"])) for key, cell in run.cells.items() if "board" in cell.facts]
    there = [text for cell, text in said if cell == finding.smallest.cell] or [text for _, text in said]
    return board.read(there[0]) if there else BOARD


def _asked(vector: Vector, departure: Departure, made_of: Board) -> dict[str, object]:
    """What the script needs to ask ``vector`` in its way; L1 is ``made_of``, or what there is in its stead."""
    how = _how(vector)
    told: dict[str, object] = {"how": how}
    if isinstance(vector, ClientVector | ClientSequence | UserMsrVector):
        told |= {"request": client.request(vector), "answer": type(vector).__name__, "tally": tally.FIELDS}
        told |= {"spurious": LIVELOCK_EXITS}
    elif isinstance(vector, HostVector):
        told |= {"what": vector.what}
    else:
        batch = guest.pack([vector])
        at = protocol.HEADER.unpack(batch)["observations"]
        assert isinstance(at, int)
        machine = vector.machine
        record = guest.deciding_record(vector, departure.turn)
        memory = protocol.L1_MEMORY
        argv = [
            (one, qemu.arguments(machine, kernel="probe.elf", memory=memory, monitored=False, board=one))
            for one in board.beside(made_of)
        ]
        told |= {
            "observation_at": protocol.BATCH_BASE + at + record * protocol.OBSERVATION.size,
            "turn": record,
            "turns": guest.count_records(vector) if isinstance(vector, SequenceVector) else 1,
            "boards": [(one, shlex.join(words[1:])) for one, words in argv],
            "binary": argv[0][1][0],
            "names": board.names(),
            "pvpanic": board.PVPANIC,
            "memory": qemu.SHM if machine.env.backing == "4k" else f"{qemu.HUGE}/l1",
            "huge": qemu.HUGE if machine.env.backing == "2m" else "",
            "huge_pages": protocol.L1_MEMORY // qemu.HUGE_PAGE,
            "linear_of_fault": not isinstance(vector, MsrVector),
        }
    return told


def script(
    finding: Finding, *, release: str, known: Sequence[Parameter] = (parameters.OWN,), made_of: Board = BOARD
) -> str:
    """The function gives ``run.sh``. ``release`` is the kernel's of the run, empty where that is unknown; ``known`` are
    the parameters that the series adds; L1 was ``made_of`` this board.
    """
    smallest = finding.smallest
    level, value = smallest.cell
    vector = smallest.vector
    setting = Setting.parse(value)
    env = vector.machine.env
    options = module_options(setting, env)
    return _render(
        "run.sh.j2",
        f=finding,
        vector=vector.id,
        level=level,
        parameters=options,
        given=setting.words,
        left=[p.key for p in known if p.at(level) and p.key not in setting.values],
        wanted={"0": "N | 0", "1": "Y | 1"},
        cpu_mbec=env.cpu_mbec,
        release=release,
        base=protocol.BATCH_BASE,
        size=protocol.L1_MEMORY,
        header=protocol.HEADER,
        observation=protocol.OBSERVATION,
        c=protocol.CONSTANTS,
        kinds={kind.name: kind.value for kind in Kind},
        glavalid=guest.QUALIFICATION_GLA_VALID,
        pf=guest.VECTOR_PF,
        q=shlex.quote,
        seen=_expected(smallest.seen),
        legal=[_expected(outcome) for outcome in smallest.legal],
        **{"tally": (), **_asked(vector, smallest, made_of)},
    )


def _render(template: str, **values: object) -> str:
    loader = FileSystemLoader(TEMPLATES)
    environment = Environment(
        loader=loader, undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template).render(**values)


def below(series: Series) -> dict[str, bytes]:
    """The function gives the patches that level 0 has above the base, by their names in the archive."""
    count = len(series.on)
    return {
        f"prerequisites/{mail.file_name(number, patch.subject)}": mail.written(
            patch.mail, number, count, patch.message_id
        ).encode()
        for number, patch in enumerate(series.on, 1)
    }


def patches(series: Series, level: int, provenance: Mapping[str, Any]) -> tuple[Patch, ...]:
    """The function gives patches 1 to ``level``.

    Raises InputError when they are not the ones of the run.
    """
    chosen = series.patches[: max(series.numbers(level), default=0)]
    of_run = {row["number"]: row.get("sha256") for row in provenance.get("patches", ())}
    for patch in chosen:
        known = of_run.get(patch.number)
        if known and known != sha256(patch.path):
            raise InputError(
                f"{patch.path} is not patch {patch.number} of the run (sha256 {known[:16]}...): name the run's series "
                "with --series"
            )
    return chosen


def contents(
    finding: Finding,
    told: Sequence[str],
    run: int,
    provenance: Mapping[str, Any],
    series: Series,
    binaries: Binaries,
    made_of: Board = BOARD,
) -> dict[str, bytes]:
    """The function gives the archive's files by name, of a finding of run ``run``. ``told``: the finding in lines, as
    ``kvmirror explain`` prints it; L1 was ``made_of`` this board.

    Raises InputError where ``series`` or what it stands on is not the run's, or the vector cannot be bundled.
    """
    smallest = finding.smallest
    vector = smallest.vector
    how = _how(vector)
    if smallest.seen.kind is Kind.ASTRAY:
        raise InputError(
            f"{finding.name} cannot go into a bundle: its script does not look at the state that an exit leaves; "
            f"'kvmirror run' asks {vector.id} where kvmirror is installed"
        )
    level, param = smallest.cell
    of_series.same_below(run, provenance, series.on)
    chosen = patches(series, level, provenance)
    record = finding_json(finding) | {"level": level, "param": param, "turn": smallest.turn}
    record |= {"legal": [str(outcome) for outcome in smallest.legal], "record": _json_of(smallest)}
    release = str(provenance.get("kernel", {}).get("release", ""))
    fragment = needs.plain(needs.read()).encode()
    files = {
        "finding.json": _json(record),
        "provenance.json": _json(provenance),
        "vectors.txt": "".join(f"{asked.id}\n" for asked in finding.vectors).encode(),
        "explanation.txt": "".join(f"{line}\n" for line in told).encode(),
        "config.fragment": fragment,
        **below(series),
        **{f"patches/{patch.path.name}": patch.path.read_bytes() for patch in chosen},
        SCRIPT: script(finding, release=release, known=series.parameters, made_of=made_of).encode(),
    }
    if how == "l1":
        files |= {"probe.elf": binaries.probe.read_bytes(), "memio": binaries.memio.read_bytes()}
        files["batch.bin"] = guest.pack([vector])
    else:
        files["kvmclient"] = binaries.client.read_bytes()
        if how == "client":
            assert isinstance(vector, ClientVector | ClientSequence | UserMsrVector)
            files["case.txt"] = f"{client.request(vector)}\n".encode()
    fragment_of_run = provenance.get("config", {}).get("fragment")
    env = vector.machine.env
    files["README.md"] = _render(
        "README.md.j2",
        f=finding,
        told=told,
        level=level,
        param=param,
        release=release,
        series=series,
        patches=chosen,
        files=sorted(files),
        other_fragment=bool(fragment_of_run) and fragment_of_run != hashlib.sha256(fragment).hexdigest(),
        other_probe=how == "l1" and provenance.get("probe", "") not in ("", sha256(binaries.probe)),
        parameters=module_options(Setting.parse(param), env),
        cpu_mbec=env.cpu_mbec,
        how=how,
        board=made_of,
    ).encode()
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    return files | {"SHA256SUMS": sums.encode()}


def _json_of(departure: Departure) -> dict[str, Json]:
    """The departure's answers field by field; a kind as its word."""

    def plain(outcome: Outcome | None) -> Json:
        return None if outcome is None else asdict(outcome) | {"kind": outcome.kind.value, "turns": len(outcome.turns)}

    return {"seen": plain(departure.seen), "legal": [plain(o) for o in departure.legal]}


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def archive(files: Mapping[str, bytes], folder: str) -> bytes:
    """The archive has ``files`` under ``folder`` as .tar.gz: sorted, of one time and owner, so that the same files give
    the same bytes.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(data)
            entry.mode = 0o755 if name == SCRIPT or data.startswith(b"\x7fELF") else 0o644
            entry.uname = entry.gname = "root"
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), 9, mtime=0)
