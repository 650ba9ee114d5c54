"""Probe and client built by the machine's own compiler; the probe on the bare emulated CPU (live)."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from harness import protocol
from harness.build import probe
from harness.build.cache import Cache
from harness.errors import BuildError, GuestError
from harness.observe import bare
from harness.observe import batch as guest
from harness.observe.bare import askable
from harness.observe.l1 import virtual_cpu
from harness.process import programs
from harness.questions.sequences import SEQUENCES
from harness.questions.vm_entries import entry_checks
from harness.results.verdict import Mark, judge
from harness.run.emulator import build as build_emulator
from kvmodel import sdm
from kvmodel.question.outcome import Kind, Place
from kvmodel.question.vector import (
    Access,
    AccessVector,
    EntryVector,
    Evmcs,
    GuestPerm,
    Mbec,
    MmioVector,
    MsrVector,
    Paging,
    Perm,
    Vector,
)

C = protocol.CONSTANTS


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


def test_probe_is_an_elf32_that_multiboot_loaders_take(built: Cache) -> None:
    path = probe.build(built)
    image = path.read_bytes()
    probe.check_multiboot(image)
    assert probe.build(built) == path
    # its memory ends far below its fixed memory at 16 MiB
    header = image[int.from_bytes(image[28:32], "little") :]
    begin, size = int.from_bytes(header[12:16], "little"), int.from_bytes(header[20:24], "little")
    assert begin == 1 << 20 and begin + size < 16 << 20


def test_a_file_that_no_loader_takes_is_refused() -> None:
    with pytest.raises(BuildError, match="not an ELF32"):
        probe.check_multiboot(b"\x7fELF\x02" + bytes(8192))
    with pytest.raises(BuildError, match="no Multiboot header"):
        probe.check_multiboot(b"\x7fELF\x01" + bytes(9000))


def test_client_refuses_what_it_does_not_know(built: Cache) -> None:
    client = probe.client(built)
    for words in ([], ["case"], ["case", "long", "fetch", "x"], ["case", "real", "read", "s"], ["info", "1"],
                  ["all", "0"], ["all", "5x"], ["case", "long", "fetch", "u", "10", "10"]):  # fmt: skip
        assert programs.run([client, *words], check=False).returncode == 2, words


def test_client_answers_or_says_that_there_is_no_kvm(built: Cache) -> None:
    done = programs.run([probe.client(built), "info"], check=False)
    if done.returncode == 4:
        assert "/dev/kvm" in done.stderr
    else:
        assert json.loads(done.stdout)["info"]["api"] == 12


def test_frame_tells_missing_short_and_damaged_streams_apart() -> None:
    payload = b"observations"
    sound = bare.MARK + len(payload).to_bytes(8, "little") + payload + sum(payload).to_bytes(8, "little")
    assert bare.frame(b"banner\n" + sound + b"trailer") == payload
    with pytest.raises(GuestError, match="without observations"):
        bare.frame(b"banner")
    with pytest.raises(GuestError, match="cut short"):
        bare.frame(sound[:-1])
    with pytest.raises(GuestError, match="damaged"):
        bare.frame(sound.replace(b"obs", b"obt"))


@pytest.fixture(scope="module")
def emulator() -> tuple[Path, Path]:
    cache = Cache()
    return build_emulator(cache), probe.build(cache)


def run(emulator: tuple[Path, Path], vectors: list[Vector], **how: int) -> guest.Batch:
    return bare.run(emulator[0], emulator[1], vectors, timeout=120, **how)  # type: ignore[arg-type]


@pytest.mark.live
def test_bare_cpu_answers_each_kind(emulator: tuple[Path, Path]) -> None:
    s = GuestPerm.parse("swx")
    cases: list[tuple[Vector, Kind, Place | None]] = [
        (MsrVector(msr=0x48B), Kind.VALUE, None),
        (EntryVector(ept=True), Kind.DONE, None),
        (EntryVector(Mbec.ON, ept=False), Kind.ENTRY_FAIL, None),
        (MmioVector(), Kind.DONE, None),
        (EntryVector(ev=Evmcs.USED), Kind.SCAFFOLD, None),  # no hypervisor under it offers an enlightened VMCS
        (AccessVector(leaf=Perm.parse("-w--")), Kind.MISCONFIG, Place("target")),
        (AccessVector(leaf=Perm.parse("r-x-"), access=Access.FETCH, gp=s), Kind.DONE, None),
        (AccessVector(leaf=Perm.parse("r-x-"), access=Access.FETCH, cpl=3), Kind.VIOLATION, Place("target")),
        (AccessVector(leaf=Perm.parse("r--u"), access=Access.FETCH, cpl=3), Kind.DONE, None),
        (AccessVector(upper_level=4, upper=Perm.parse("r---"), access=Access.WRITE), Kind.VIOLATION, Place("target")),
        (AccessVector(leaf_level=3, upper_level=4, leaf=Perm.parse("rw--")), Kind.DONE, None),
        (AccessVector(leaf=Perm.parse("----"), access=Access.WALK), Kind.VIOLATION, Place("gpt")),
        (AccessVector(access=Access.READ, smap=True), Kind.EXCEPTION, None),
        *(
            (
                AccessVector(leaf=Perm.parse(leaf), access=access),
                kind,
                Place("target") if kind is not Kind.DONE else None,
            )
            for access, leaf, kind in (
                (Access.EMUREAD, "r---", Kind.DONE),
                (Access.EMUREAD, "--x-", Kind.VIOLATION),
                (Access.EMUWRITE, "rw--", Kind.DONE),
                (Access.EMUWRITE, "r-x-", Kind.VIOLATION),
                (Access.EMUFETCH, "r--u", Kind.DONE),
                (Access.EMUFETCH, "rw--", Kind.VIOLATION),
            )
        ),
        *(
            (AccessVector(access=access, paging=paging), Kind.DONE, None)
            for access in (Access.READ, Access.WRITE, Access.RMW, Access.FETCH)
            for paging in Paging
        ),
    ]
    batch = run(emulator, [v for v, _, _ in cases])
    assert batch.header.done and batch.header.bare
    for (vector, kind, gpa), o in zip(cases, batch.observations, strict=True):
        got = guest.outcome(vector, o)
        assert (got.kind, got.gpa) == (kind, gpa), f"{vector.id}: {got}"


@pytest.mark.live
def test_order_of_a_batch_does_not_matter(emulator: tuple[Path, Path]) -> None:
    vectors: list[Vector] = [
        AccessVector(mbec, leaf=leaf, access=access, gp=GuestPerm.parse(gp), ad=ad)
        for mbec in (Mbec.ON, Mbec.OFF)
        for leaf in Perm.all()
        for access in Access
        for gp in ("uwx", "swx")
        for ad in (False, True)
    ]
    shuffled = vectors[:]
    random.Random(20).shuffle(shuffled)
    answers = [
        {v.id: guest.outcome(v, o) for v, o in zip(order, run(emulator, order).observations, strict=True)}
        for order in (vectors, shuffled)
    ]
    assert answers[0] == answers[1]
    assert not any(o.kind in (Kind.SCAFFOLD, Kind.LIVELOCK, Kind.BLOCKED) for o in answers[0].values())


def spinning(pack: object) -> object:
    """``guest.pack`` whose MMIO vectors are KIND_SPIN: no vector id asks for an L2 that never ends."""

    def packed(vectors: list[Vector], **how: object) -> bytes:
        stand_ins = [EntryVector() if isinstance(v, MmioVector) else v for v in vectors]
        data = bytearray(pack(stand_ins, **how))  # type: ignore[operator]
        for i, v in enumerate(vectors):
            if isinstance(v, MmioVector):
                data[protocol.HEADER.size + i * protocol.VECTOR.size + 4] = C["KIND_SPIN"]
        return bytes(data)

    return packed


@pytest.mark.live
def test_timer_gives_l1_back_from_an_l2_that_never_ends(
    emulator: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest, "pack", spinning(guest.pack))
    vectors: list[Vector] = [MmioVector(), AccessVector(), MmioVector(), AccessVector(leaf=Perm.parse("----"))]
    batch = run(emulator, vectors)
    kinds = [guest.outcome(v, o).kind for v, o in zip(vectors, batch.observations, strict=True)]
    assert kinds == [Kind.LIVELOCK, Kind.DONE, Kind.LIVELOCK, Kind.VIOLATION]


@pytest.mark.live
def test_a_sequence_keeps_its_addresses_and_sees_the_new_permission(emulator: tuple[Path, Path]) -> None:
    vectors = [AccessVector(leaf=Perm.parse(p), access=Access.WRITE) for p in ("r---", "rw--", "r---")]
    flags = [0, C["FLAG_CONTINUE"], C["FLAG_CONTINUE"] | C["FLAG_VMCS_B"]]
    batch = bare.run(emulator[0], emulator[1], vectors, flags=flags, timeout=120)
    kinds = [guest.outcome(v, o).kind for v, o in zip(vectors, batch.observations, strict=True)]
    assert kinds == [Kind.VIOLATION, Kind.DONE, Kind.VIOLATION]
    assert len({(o.target_gpa, o.leaf_address) for o in batch.observations}) == 1


@pytest.mark.live
def test_the_bare_cpu_goes_by_the_contract_from_turn_to_turn(emulator: tuple[Path, Path]) -> None:
    vectors: list[Vector] = [v for v in SEQUENCES["sequence_sampled"]() if askable(v)][:300]
    batch = run(emulator, vectors)
    cpu = virtual_cpu(batch.header)
    for vector, seen in zip(vectors, guest.outcomes(vectors, batch.observations), strict=True):
        assert judge(None, sdm.allowed(cpu, vector), seen).marks is Mark.AGREE, (vector.id, str(seen))


@pytest.mark.live
def test_the_bare_cpu_makes_each_check_of_vm_entry_and_forgets_it(emulator: tuple[Path, Path]) -> None:
    """Between the VM entries stands an access: nothing of a changed VMCS may reach it."""
    asked = list(entry_checks())[::5]
    vectors: list[Vector] = [v for pair in zip(asked, [AccessVector()] * len(asked), strict=True) for v in pair]
    batch = run(emulator, vectors)
    cpu = virtual_cpu(batch.header)
    for vector, seen in zip(vectors, guest.outcomes(vectors, batch.observations), strict=True):
        if isinstance(vector, AccessVector):
            assert seen.kind is Kind.DONE, seen
        elif seen.kind is not Kind.SCAFFOLD:  # a field that this CPU has not
            assert Mark.FINDING not in judge(None, sdm.allowed(cpu, vector), seen).marks, (vector.id, str(seen))
