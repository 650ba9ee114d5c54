"""A finding's archive: what is in it, and that its script shows the finding again, and only the finding."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from harness import protocol
from harness.build.cache import Cache
from harness.cli import main
from harness.errors import InputError
from harness.findings import Run
from harness.findings.departures import Departure
from harness.findings.group import Finding, group
from harness.hosts import BOARD, Board
from harness.observe import batch as guest
from harness.questions.loads import Load
from harness.report import bundle
from harness.results.journal import Journal
from harness.results.of_series import RunSeries, diff_hash
from harness.run.setup import Bench
from harness.series import Patch, folder
from harness.series.mail import parse
from kvmodel.question.outcome import Kind, Outcome, Place
from kvmodel.question.reading import parse as parse_id
from kvmodel.question.vector import (
    ENVIRONMENTS,
    Access,
    AccessVector,
    ClientSequence,
    ClientVector,
    HostVector,
    Mbec,
    NxVector,
    Perm,
    UserMsrVector,
    Vector,
)
from tests.harness.settings import OFF, ON, UNSET

C = protocol.CONSTANTS
LOOP, DONE = Outcome(Kind.LIVELOCK), Outcome(Kind.DONE)
# A user page that L1 made executable the way it always did, bit 10 clear: L2 never gets past its fetch.
FETCH = AccessVector(Mbec.OFF, leaf=Perm(True, True, True, False), access=Access.FETCH, cpl=3)
# With MBEC off bit 10 is ignored: bit 2 alone lets L2 fetch, and it is clear.
ALONE = AccessVector(Mbec.OFF, leaf=Perm(True, False, False, True), access=Access.FETCH)


def finding(vector: Vector, seen: Outcome = LOOP, cell: tuple[int, str] = (18, "1")) -> Finding:
    (found,) = group([Departure(vector, cell, "kvm", seen, (DONE,), "ept-permission", "28.3.3.2")])
    return found


@pytest.fixture
def binaries(tmp_path: Path) -> bundle.Binaries:
    made = bundle.Binaries(tmp_path / "probe.elf", tmp_path / "kvmclient", tmp_path / "memio")
    for path in (made.probe, made.client, made.memio):
        path.write_bytes(b"\x7fELF" + path.name.encode())
    return made


def files(
    found: Finding, binaries: bundle.Binaries, provenance: dict[str, object] | None = None, on: tuple[Patch, ...] = ()
) -> dict[str, bytes]:
    return bundle.contents(found, ["told"], 1, provenance or {}, replace(folder.read(), on=on), binaries)


def test_the_same_finding_is_the_same_bytes(binaries: bundle.Binaries) -> None:
    first, second = (bundle.archive(files(finding(FETCH), binaries), "f") for _ in range(2))
    assert first == second
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == sorted(m.name for m in members)
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "root")}
    assert {m.name for m in members if m.mode & 0o100} == {"f/run.sh", "f/probe.elf", "f/memio"}


def test_what_an_l1_vector_s_archive_holds(binaries: bundle.Binaries) -> None:
    found = files(finding(FETCH, cell=(15, "1")), binaries, {"kernel": {"release": "6.12.8"}})
    patches = [name for name in found if name.startswith("patches/")]
    assert len(patches) == 15 and "kvmclient" not in found
    assert found["batch.bin"] == guest.pack([FETCH])
    record = json.loads(found["finding.json"])
    assert (record["level"], record["param"], record["smallest"]) == (15, "1", FETCH.id)
    assert json.loads(found["provenance.json"]) == {"kernel": {"release": "6.12.8"}}
    sums = dict(reversed(line.split("  ")) for line in found["SHA256SUMS"].decode().splitlines())
    assert sums == {n: hashlib.sha256(d).hexdigest() for n, d in found.items() if n != "SHA256SUMS"}
    assert FETCH.id in found["run.sh"].decode() and "6.12.8" in found["run.sh"].decode()


@pytest.mark.parametrize(
    ("vector", "case"),
    [
        (ClientVector("real"), "seq real u 4k fetch\n"),
        (ClientSequence(steps=("read", "log", "write")), "seq long u 4k read+log+write\n"),
        (UserMsrVector(), "msr 48b c54\n"),
        (HostVector("param"), None),
        (HostVector("m48b"), None),
    ],
)
def test_what_the_host_is_asked_needs_no_probe(vector: Vector, case: str | None, binaries: bundle.Binaries) -> None:
    found = files(finding(vector, Outcome(Kind.HOST)), binaries)
    assert "kvmclient" in found and "probe.elf" not in found
    assert found.get("case.txt", b"").decode() == (case or "")


def test_what_only_tracepoints_tell_is_refused(binaries: bundle.Binaries) -> None:
    with pytest.raises(InputError, match="tracepoint"):
        bundle._how(HostVector("taccess"))
    with pytest.raises(InputError, match="tracepoint"):
        bundle._how(NxVector())
    with pytest.raises(InputError, match="a program's answer is made of many; 'kvmirror run' asks it"):
        bundle._how(parse_id("prog+read.a3"))


def test_another_series_than_the_run_s_is_refused(binaries: bundle.Binaries) -> None:
    with pytest.raises(InputError, match=r"not patch 2 of the run.*--series"):
        files(finding(FETCH), binaries, {"patches": [{"number": 2, "sha256": "0" * 64}]})


def test_what_the_series_stands_on_goes_along(binaries: bundle.Binaries) -> None:
    """As a machine without the mails needs it: to be applied below the series."""
    own = folder.read()
    below = own.patches[3:5]
    stood = {"series": RunSeries(18, True, " --on mine", 2).as_json(), "below": [diff_hash(patch) for patch in below]}
    found = files(finding(FETCH, cell=(2, "1")), binaries, stood, below)
    carried = {name: data for name, data in found.items() if name.startswith("prerequisites/")}
    assert [name[:18] for name in carried] == ["prerequisites/0001", "prerequisites/0002"]
    for data, patch in zip(carried.values(), below, strict=True):
        assert parse(data, "a prerequisite").diff == patch.mail.diff
    assert "those in `patches/`" in found["README.md"].decode()
    with pytest.raises(InputError, match=r"run 1 stood on 2 prerequisites, not on 0: name the same: .*--on mine"):
        files(finding(FETCH), binaries, stood)
    with pytest.raises(InputError, match=r"prerequisite 1 .* is not the one of run 1"):
        files(finding(FETCH), binaries, stood, (below[1], below[0]))
    with pytest.raises(InputError, match="not on 1: leave out --on"):
        files(finding(FETCH), binaries, {}, below[:1])


def test_an_unknown_finding_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.end(journal.begin([], {}), "complete")
    assert main.main(["bundle", "F9", "--journal", str(path), "--run", "1"]) == 2
    assert "'F9' is not in run 1" in capsys.readouterr().err


def test_a_code_is_compared_in_words_that_any_shell_has() -> None:
    assert bundle.words(0x1_8000_0000_0000_0001) == ["0x0", "0x1", "0x80000000", "0x1"]


ALL = [FETCH, replace(FETCH, env="huge"), ClientVector(), ClientSequence(), UserMsrVector(), HostVector(),
       HostVector("m48c")]  # fmt: skip


@pytest.mark.parametrize("vector", ALL, ids=lambda v: v.id)
def test_shells_read_the_script_and_it_refuses_a_machine_without_kvm(vector: Vector, tmp_path: Path) -> None:
    text = bundle.script(finding(vector), release="6.12.8")
    for shell in (["busybox", "sh"], ["dash"]):
        assert subprocess.run([*shell, "-n"], input=text.encode(), capture_output=True).stderr == b""
    (tmp_path / "run.sh").write_text(text.replace("/dev/kvm", str(tmp_path / "no-kvm")))
    done = subprocess.run(["busybox", "sh", tmp_path / "run.sh"], capture_output=True, text=True)
    assert done.returncode == 4 and "there is no" in done.stderr


# A QEMU that says what it has, and else ends at once.
QEMU = """\
#!/bin/sh
case "$*" in
"-machine help") printf 'Supported machines are:\\nmicrovm   microvm (i386)\\nnone   empty machine\\n' ;;
"-device help") printf 'Misc devices:\\nname "pvpanic", bus ISA\\n' ;;
esac
"""


def _answers(tmp_path: Path, seen: Outcome, fields: dict[str, int]) -> subprocess.CompletedProcess[str]:
    """The script on a made-up host: a QEMU that ends at once, a memory file in which L1 left ``fields``."""
    text = bundle.script(finding(FETCH, seen), release="")
    memory = tmp_path / "l1"
    text = text.replace("/sys/module/kvm_intel/parameters/nested", str(tmp_path / "nested"))
    text = text.replace("[ -c /dev/kvm ]", "true").replace("[ -r /dev/kvm ] && [ -w /dev/kvm ]", "true")
    text = text.replace("/dev/shm/kvmirror-l1", str(memory))
    (tmp_path / "nested").write_text("Y\n")
    batch = guest.pack([FETCH])
    header = protocol.HEADER.unpack(batch)
    at = header["observations"]
    fields = dict(fields)
    state = fields.pop("state", C["STATE_DONE"])
    left = protocol.HEADER.pack(**header | {"state": state}) + batch[protocol.HEADER.size : at]
    (tmp_path / "left.bin").write_bytes(left + protocol.OBSERVATION.pack(**fields))
    # memio, as far as the script uses it
    (tmp_path / "memio").write_text(
        '#!/bin/sh\n[ "$1" = read ] || exec cat >/dev/null\n'
        f'exec dd if="{tmp_path}/left.bin" bs=1 skip=$(($3 - {protocol.BATCH_BASE})) count=$4 2>/dev/null\n'
    )
    (tmp_path / "batch.bin").write_bytes(batch)
    (tmp_path / "run.sh").write_text(text)
    (tmp_path / "memio").chmod(0o755)
    (tmp_path / "qemu").write_text(QEMU)
    (tmp_path / "qemu").chmod(0o755)
    env = {"PATH": "/usr/bin:/bin", "QEMU": str(tmp_path / "qemu"), "TIMEOUT": "5"}
    return subprocess.run(["dash", tmp_path / "run.sh"], capture_output=True, text=True, env=env)


VIOLATION = Outcome(Kind.VIOLATION, code=0x8000_0000_0000_0181, gpa=Place("target", 0x10), gla=Place("target", 0x10))
SAID = {
    "verdict": C["VERDICT_EXIT"], "reason": 48, "qualification": 0x8000_0000_0000_0181, "gpa": 0x8123_4010,
    "gla": 0x40_0010, "target_gpa": 0x8123_4000, "target_gla": 0x40_0000, "gpt_gpa": 0x5000,
}  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "fields", "status"),
    [
        (LOOP, {"verdict": C["VERDICT_TIMEOUT"]}, 0),
        (LOOP, {"verdict": C["VERDICT_DONE"]}, 1),
        (VIOLATION, SAID, 0),
        (VIOLATION, SAID | {"qualification": 0x181}, 1),
        (VIOLATION, SAID | {"gpa": 0x8123_4018}, 1),
        (VIOLATION, SAID | {"gla": 0x40_0018}, 1),
        (replace(VIOLATION, gpa=Place("gpt", 8), gla=None), SAID | {"gpa": 0x5008, "gpt_gpa": 0x5000}, 0),
        (replace(VIOLATION, gpa=Place("l2", 0x9000)), SAID | {"gpa": 0x9000}, 0),
        (Outcome(Kind.MISCONFIG, gpa=Place("target")), SAID | {"reason": 49, "gpa": 0x8123_4000}, 0),
        (Outcome(Kind.EXCEPTION, code=0x15, number=14, gla=Place("target")),
         {"verdict": C["VERDICT_EXCEPTION"], "vector": 14, "error": 0x15, "qualification": 0x7000,
          "target_gla": 0x7000}, 0),
        (Outcome(Kind.ENTRY_FAIL, code=7), {"verdict": C["VERDICT_ENTRY_FAIL"], "error": 7}, 0),
        (Outcome(Kind.ENTRY_EXIT, code=2, number=33),
         {"verdict": C["VERDICT_ENTRY_EXIT"], "reason": 0x8000_0021, "qualification": 2}, 0),
        (Outcome(Kind.VALUE, code=1 << 63), {"verdict": C["VERDICT_VALUE"], "value": 1 << 63}, 0),
        (Outcome(Kind.HOST, note="L1 reset itself"), {"state": C["STATE_RUNNING"]}, 0),
        (LOOP, {"state": C["STATE_RUNNING"]}, 1),
        (LOOP, {"state": C["STATE_LOADED"]}, 4),
        (LOOP, {"state": C["STATE_REFUSED"]}, 4),
        (LOOP, {"verdict": C["VERDICT_SCAFFOLD"]}, 4),
        (LOOP, {"verdict": C["VERDICT_NONE"]}, 4),
    ],
)  # fmt: skip
def test_the_shell_decodes_what_l1_left(tmp_path: Path, seen: Outcome, fields: dict[str, int], status: int) -> None:
    done = _answers(tmp_path, seen, fields)
    assert done.returncode == status, (done.stdout, done.stderr)
    assert ("shown again" in done.stdout) is (status == 0)
    assert not (tmp_path / "l1").exists()


@pytest.mark.parametrize(
    ("machines", "pvpanic", "ran_on", "takes", "says"),
    [
        ("microvm pc q35", True, BOARD, "-machine microvm,", ""),
        ("microvm pc q35", True, Board("q35"), "-machine q35,", ""),
        ("microvm pc q35", True, Board("pc", pvpanic=False), "acpi=on,memory", ""),
        ("pc q35", True, BOARD, "-machine pc,", "L1 runs on pc, it was microvm"),
        ("microvm pc q35", False, BOARD, "-machine pc,", "L1 runs on pc without pvpanic, it was microvm"),
        ("q35", False, Board("pc"), "-machine q35,", "L1 runs on q35 without pvpanic, it was pc"),
        ("none", True, BOARD, None, "none of the machine types microvm, pc or q35"),
    ],
)
def test_l1_runs_on_the_board_of_the_run_or_on_what_there_is(
    tmp_path: Path, machines: str, pvpanic: bool, ran_on: Board, takes: str | None, says: str
) -> None:
    text = bundle.script(finding(FETCH), release="", made_of=ran_on)
    begin, end = text.index("QEMU=${QEMU"), text.index("[ ! -e /dev/shm")
    qemu = QEMU.replace("microvm   microvm (i386)", "\\n".join(f"{name}  a machine" for name in machines.split()))
    (tmp_path / "qemu").write_text(qemu if pvpanic else qemu.replace('"pvpanic"', '"pvpanic-pci"'))
    (tmp_path / "qemu").chmod(0o755)
    head = 'cannot() { echo "$*" >&2; exit 4; }\ndiffers() { echo "$*" >&2; }\n'
    for shell in (["busybox", "sh"], ["dash"]):
        done = subprocess.run(
            [*shell, "-c", head + text[begin:end] + 'echo "$@"'],
            capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "QEMU": str(tmp_path / "qemu")}, check=False,
        )  # fmt: skip
        assert done.returncode == (4 if takes is None else 0)
        assert (takes or "") in done.stdout and says in done.stderr and bool(done.stderr) is bool(says)
        assert ("-device pvpanic" in done.stdout) is (takes is not None and pvpanic and ran_on.pvpanic)


@pytest.mark.live
def test_findings_are_shown_again_by_their_archives_and_only_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    entry = "vmentry.guest_activity_state=1+guest_interruptibility_info=1.mbec=off"  # the base's own, so at each level
    asked = [FETCH.id, ALONE.id, parse_id(entry).id]
    assert main.main(["validate", "--levels", "18", "--param", "1", "--journal", str(path), "--vectors", *asked]) == 1
    with Journal(path) as journal:
        found = {f.smallest.vector.id: f for f in Run.open(journal).findings}
    assert set(found) == set(asked)
    assert {f.symptom.severity for f in found.values()} >= {"L2 livelock", "permission not enforced"}
    archives = {}
    for f in found.values():
        out = tmp_path / f"{f.name}.tar.gz"
        assert main.main(["bundle", f.name, "--journal", str(path), "--out", str(out)]) == 0
        archives[f.name] = out.read_bytes()
    bench = Bench(Cache(), emulator=None, mended=True, linux=None, series=None)
    bench.build([0, 18])
    with bench.open_host(True, "the other machine") as host:
        for name, data in archives.items():
            host.put(data, f"/tmp/{name}.tar.gz")
            host.run(f"cd /tmp && gunzip {name}.tar.gz && tar xf {name}.tar", check=True)
        session = bench.open_session(host)
        for level, param, wanted in ((18, ON, 0), (18, OFF, 1), (0, UNSET, 1)):
            session.load(Load(level, param, ENVIRONMENTS["std"]))
            for vector, f in found.items():
                name, status = f.name, 0 if vector == asked[2] else wanted
                done = host.run(f"sh /tmp/kvmirror-{name}/run.sh", timeout=90)
                assert done.status == status, (level, param, name, done.stdout, done.stderr)
                # Another departure of the same vector (L2 livelocks there with the parameter off) is not the finding.
                other = "neither" if (vector, level, param) == (ALONE.id, 18, OFF) else "the manual allows this"
                assert (other if status else "shown again") in done.stdout
                assert ("not as in the finding" in done.stderr) is (wanted == 1)
        host.unload()
        done = host.run(f"sh /tmp/kvmirror-{next(iter(archives))}/run.sh", timeout=90)
        assert done.status == 4 and "/dev/kvm" in done.stderr
