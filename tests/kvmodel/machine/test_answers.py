"""machine.py: whole predictions, against facts read off the C and the manual, not off other runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvmodel import sdm
from kvmodel.cpu import Cpu
from kvmodel.machine import events, predict, virtual_cpu, warns
from kvmodel.question.outcome import Kind, Outcome, Place
from kvmodel.question.reading import parse
from kvmodel.question.vector import Access, AccessVector, HostVector, Mbec, NxVector, Paging, Perm
from kvmodel.sdm import errata
from kvmodel.series import Level
from tests.kvmodel.mirror import CPU

SOUND = Perm(True, True, True, True)


def ask(level: int, text: str, param: bool | None = None, cpu: Cpu = CPU) -> Outcome:
    return predict(level, param, cpu, parse(text)).outcome


def access(level: int, leaf: str, kind: Access, param: bool | None = None, cpu: Cpu = CPU, **more: object) -> Outcome:
    more.setdefault("mbec", Mbec.OFF)
    vector = AccessVector(leaf=Perm.parse(leaf), access=kind, **more)  # type: ignore[arg-type]
    return predict(level, param, cpu, vector).outcome


@pytest.mark.parametrize("leaf", [str(p) for p in Perm.all()])
@pytest.mark.parametrize("kind", [Access.READ, Access.WRITE, Access.FETCH])
def test_the_base_obeys_the_manual_without_mbec(leaf: str, kind: Access) -> None:
    r, w, x = (leaf[i] != "-" for i in range(3))
    got = access(0, leaf, kind)
    if not (r or w or x):
        assert (got.kind, got.code & 0x3F) == (Kind.VIOLATION, {"read": 1, "write": 2, "fetch": 4}[kind.value])
    elif w and not r:
        assert got == Outcome(Kind.MISCONFIG, gpa=Place("target"))
    elif {"read": r, "write": w, "fetch": x}[kind.value]:
        assert got.kind is Kind.DONE
    else:
        bits = r << 3 | w << 4 | x << 5 | {"read": 1, "write": 2, "fetch": 4}[kind.value] | 0x180
        assert (got.kind, got.code) == (Kind.VIOLATION, bits)
        assert (got.gpa, got.gla) == (Place("target"), Place("target"))


def test_execute_only_not_offered() -> None:
    assert access(0, "--x-", Access.FETCH, xo=True).kind is Kind.DONE
    assert access(0, "--x-", Access.FETCH, xo=False).kind is Kind.MISCONFIG


@pytest.mark.parametrize(
    ("k", "kind"), [(0, Kind.VIOLATION), (10, Kind.VIOLATION), (11, Kind.LIVELOCK), (18, Kind.LIVELOCK)]
)
def test_a_forbidden_read_of_a_bit_10_entry(k: int, kind: Kind) -> None:
    """From patch 11 the walk lets it pass, and the CPU meets an entry without read permission again and again."""
    got = access(k, "--xu", Access.READ)
    assert got.kind is kind


@pytest.mark.parametrize(("k", "kind"), [(10, Kind.VIOLATION), (11, Kind.HOST)])
def test_a_forbidden_write_of_a_bit_10_entry_ends_kvm_run(k: int, kind: Kind) -> None:
    got = access(k, "r--u", Access.WRITE)
    assert got.kind is kind
    if kind is Kind.HOST:
        assert got.matches(Outcome(Kind.HOST, note="anything"))


@pytest.mark.parametrize(
    ("kind", "leaf", "code"),
    [
        (Access.EMUREAD, "r---", None),
        (Access.EMUREAD, "--x-", 0x1A1),  # the CPU itself reads the page first
        (Access.EMUWRITE, "rw--", None),
        (Access.EMUFETCH, "r-x-", None),
        (Access.EMUFETCH, "r---", 0x18C),  # the CPU itself fetches first
    ],
)
def test_the_emulator_acting_for_l2_as_the_manual_has_it(kind: Access, leaf: str, code: int | None) -> None:
    got = access(0, leaf, kind)
    assert got == (
        Outcome(Kind.DONE) if code is None
        else Outcome(Kind.VIOLATION, code, gpa=Place("target"), gla=Place("target"), defined=got.defined)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "leaf", "code"),
    [(Access.EMUWRITE, "----", 0x183), (Access.EMUWRITE, "r-x-", 0x1AB), (Access.EMUFETCH, "--x-", 0x1A5)],
)
def test_the_emulators_walks_are_reads_too_and_name_the_other_operand(kind: Access, leaf: str, code: int) -> None:
    """translate_nested_gpa: "user" in the error code is "read" for EPT; vmcs12 gets the address of the CPU's exit."""
    got = access(0, leaf, kind)
    assert (got.kind, got.code, got.gpa, got.gla) == (Kind.VIOLATION, code, Place("target"), Place("mmio"))


@pytest.mark.parametrize("k", [0, 10, 11, 18])
def test_the_emulator_writes_what_l1_forbids_where_bit_10_is_set(k: int) -> None:
    """The 8-bit rows of permission_fault have no bit for an access of 8 and more."""
    got = access(k, "r--u", Access.EMUWRITE)
    assert got.kind is (Kind.DONE if k >= 11 else Kind.VIOLATION)
    assert access(k, "-w--", Access.EMUWRITE).kind is Kind.MISCONFIG


def test_mbec_is_an_entry_failure_until_it_is_offered() -> None:
    for k in range(19):
        got = access(k, "rwxu", Access.READ, param=k >= 15 or None, mbec=Mbec.ON)
        assert got == (Outcome(Kind.DONE) if k >= 16 else Outcome(Kind.ENTRY_FAIL, 7)), k


def test_supervisor_and_user_fetches_with_mbec() -> None:
    from kvmodel.question.vector import GuestPerm

    page = GuestPerm(False, True, True)
    for leaf, user, supervisor in (("r-x-", False, True), ("r-xu", True, True)):
        on_user = access(18, leaf, Access.FETCH, mbec=Mbec.ON, cpl=3)
        on_supervisor = access(18, leaf, Access.FETCH, mbec=Mbec.ON, cpl=0, gp=page)
        assert (on_user.kind is Kind.DONE) == user
        assert (on_supervisor.kind is Kind.DONE) == supervisor


@pytest.mark.parametrize("k", range(19))
def test_where_l1_cannot_run(k: int) -> None:
    """vmcs01 has MBEC from patch 6, its entries bit 10 from patch 15: between them paging off cannot fetch."""
    got = ask(k, "msr.m48b.mbec=on.xo1.ev0.env=std", True)
    assert (got.kind is Kind.BLOCKED) == (6 <= k <= 14)
    if got.kind is Kind.BLOCKED:
        assert "fetch" in got.note
        assert access(k, "rwxu", Access.READ, param=True).kind is Kind.BLOCKED
        assert ask(k, "entry.ept1.mbec=off.xo1.ev0.env=std", True).kind is Kind.BLOCKED
        assert ask(k, "mmio.read.mbec=off.xo1.ev0.env=std", True).kind is Kind.BLOCKED
    for env in ("ept0", "cpu0"):
        assert ask(k, f"msr.m48b.mbec=on.xo1.ev0.env={env}", True).kind is Kind.VALUE


def test_leaving_patches_out_is_asked_of_the_same_model() -> None:
    vector = parse("cli.real.fetch.pgu.env=std")
    assert predict(Level.of(18), True, CPU, vector).outcome.kind is Kind.DONE
    assert predict(Level.without(18, 15), True, CPU, vector).outcome.kind is Kind.LIVELOCK
    assert predict(Level.without(18, 12), True, CPU, vector).outcome.kind is Kind.LIVELOCK


@pytest.mark.parametrize("left_out", range(1, 19))
@pytest.mark.parametrize("param", [None, True])
def test_any_patch_may_be_left_out(left_out: int, param: bool | None) -> None:
    """A bit-10 entry that is read-only: only patch 11 lets the write past the permission check."""
    vector = AccessVector(leaf=Perm.parse("r--u"), access=Access.WRITE, mbec=Mbec.OFF)
    got = predict(Level.without(17, left_out), None, CPU, vector).outcome
    assert got.kind is (Kind.VIOLATION if left_out in (9, 11) else Kind.HOST)
    predict(Level.without(18, left_out), param, CPU, vector, steps=True)


@pytest.mark.parametrize(
    ("text", "k", "kind"),
    [
        ("cli.real.read.pgu.env=std", 6, Kind.LIVELOCK),
        ("cli.prot.write.pgu.env=std", 14, Kind.LIVELOCK),
        ("cli.long.fetch.pgu.env=std", 14, Kind.LIVELOCK),
        ("cli.long.fetch.pgs.env=std", 14, Kind.DONE),
        ("cli.long.write.pgu.env=std", 14, Kind.DONE),
        ("cli.real.rmw.pgu.env=std", 15, Kind.DONE),
        ("cli.real.fetch.pgu.env=ept0", 6, Kind.DONE),
        ("cli.real.fetch.pgu.env=hugenx", 18, Kind.DONE),
    ],
)
def test_client(text: str, k: int, kind: Kind) -> None:
    assert ask(k, text, True).kind is kind


@pytest.mark.parametrize(("k", "param", "env", "code"), [
    (2, True, "std", 0), (3, None, "std", ord("N")), (5, True, "ept0", ord("Y")), (6, True, "ept0", ord("N")),
    (6, True, "cpu0", ord("N")), (6, True, "std", ord("Y")), (17, None, "std", ord("N")), (18, None, "std", ord("Y")),
    (18, False, "std", ord("N")),
])  # fmt: skip
def test_parameter_file(k: int, param: bool | None, env: str, code: int) -> None:
    got = ask(k, f"host.param.env={env}", param)
    assert (got.kind, got.code) == (Kind.VALUE, code)


def test_feature_msrs_of_the_host() -> None:
    assert ask(16, "host.m48b.env=std", True).code >> 54 & 1
    assert ask(15, "host.m48b.env=std", True).code >> 54 & 1 == 0
    assert ask(6, "host.m48b.env=std", True).kind is Kind.VALUE
    assert ask(0, "host.m48c.env=std").code & 1
    assert ask(0, "host.m48c.env=eptad0").code >> 21 & 1 == 0


def test_msrs_of_l1() -> None:
    assert ask(18, "msr.m48b.mbec=on.xo1.ev0.env=std").code >> 54 & 1
    assert ask(18, "msr.m48b.mbec=na.xo1.ev0.env=std").code >> 54 & 1 == 0
    assert ask(16, "msr.m48b.mbec=on.xo1.ev1.env=std", True).code >> 54 & 1 == 0
    assert ask(17, "msr.m48b.mbec=on.xo1.ev1.env=std", True).code >> 54 & 1
    assert ask(0, "msr.m48c.mbec=on.xo0.ev0.env=std").code & 1 == 0
    with pytest.raises(ValueError, match="0x480"):
        ask(0, "msr.m480.mbec=on.xo1.ev0.env=std")


def test_entries() -> None:
    assert ask(18, "entry.ept0.mbec=on.xo1.ev0.env=std") == Outcome(Kind.ENTRY_FAIL, 7)
    assert ask(18, "entry.ept0.mbec=off.xo1.ev0.env=std").kind is Kind.DONE
    assert ask(18, "entry.ept1.mbec=on.xo1.ev0.env=std").kind is Kind.DONE
    assert ask(16, "entry.ept1.mbec=on.xo1.ev1.env=std", True) == Outcome(Kind.ENTRY_FAIL, 7)
    assert ask(0, "entry.ept1.mbec=off.xo1.ev0.env=ept0") == Outcome(Kind.ENTRY_FAIL, 7)


def test_mmio_of_l1() -> None:
    for k in (0, 18):
        assert ask(k, "mmio.read.mbec=off.xo1.ev0.env=std").kind is Kind.DONE
        assert ask(k, "mmio.fetch.mbec=off.xo1.ev0.env=std").kind is Kind.HOST
    assert ask(0, "mmio.read.mbec=off.xo1.ev0.env=ept0").kind is Kind.DONE


def test_the_page_walk() -> None:
    assert access(0, "r---", Access.WALK).kind is Kind.DONE
    got = access(0, "r---", Access.WALKA)
    assert (got.kind, got.code & 0x1FE, got.gpa, got.gla) == (
        Kind.VIOLATION, 0x8A, Place("gpt"), Place("target")
    )  # fmt: skip
    assert (
        access(0, "r---", Access.WALKA, cpu=replace(CPU, errata=frozenset({errata.UPDATE_UNCHECKED}))).kind is Kind.DONE
    )
    with_ad = access(0, "r---", Access.WALK, ad=True, leaf_bits=0x300)
    assert (with_ad.kind, with_ad.code) == (Kind.VIOLATION, 0x8B)
    assert access(0, "rw--", Access.WALKD, ad=True, leaf_bits=0x300).kind is Kind.DONE
    assert access(0, "--x-", Access.WALK).kind is Kind.VIOLATION


def test_ad_bits_that_are_not_offered() -> None:
    assert access(0, "rwxu", Access.READ, ad=True, env="eptad0") == Outcome(Kind.ENTRY_FAIL, 7)
    assert access(0, "rwxu", Access.WRITE, ad=True).kind is Kind.DONE
    assert access(0, "rwxu", Access.READ, env="ept0") == Outcome(Kind.ENTRY_FAIL, 7)


def test_the_guests_own_paging_comes_first() -> None:
    from kvmodel.question.vector import GuestPerm

    supervisor = GuestPerm(False, True, True)
    got = access(0, "----", Access.READ, cpl=3, gp=supervisor)
    assert (got.kind, got.number, got.code) == (Kind.EXCEPTION, 14, 5)
    vector = AccessVector(access=Access.READ, cpl=3, gp=supervisor, mbec=Mbec.OFF)
    assert "#PF" in str(predict(0, None, CPU, vector, steps=True).steps[-1])
    assert access(0, "r---", Access.READ, paging=Paging.OFF).kind is Kind.DONE


def test_large_pages_and_hosts_with_huge_pages() -> None:
    for env in ("std", "huge", "hugenx"):
        for level in (2, 3):
            for kind in (Access.READ, Access.FETCH):
                got = access(18, "rwxu", kind, leaf_level=level, upper_level=level + 1, env=env, cpl=3, mbec=Mbec.ON)
                assert got.kind is Kind.DONE, (env, level, kind)
    reserved = access(0, "rwxu", Access.READ, leaf_level=2, upper_level=3, leaf_bits=0x1000)
    assert reserved.kind is Kind.MISCONFIG


def test_steps_name_their_patches() -> None:
    vector = AccessVector(leaf=Perm.parse("r--u"), access=Access.WRITE, mbec=Mbec.OFF)
    told = predict(11, None, CPU, vector, steps=True)
    assert any(s.patch == 11 for s in told.steps)
    assert any("WARN" in s.what for s in told.steps)
    assert predict(11, None, CPU, vector).steps == ()
    assert predict(11, None, CPU, vector).outcome == told.outcome
    assert told.exits == 2
    done = predict(11, None, CPU, replace(vector, access=Access.READ), steps=True)
    assert "permits" in done.steps[-1].what
    failing = predict(0, None, CPU, replace(vector, mbec=Mbec.ON), steps=True)
    assert "not offered" in failing.steps[-1].what
    mmio = predict(0, None, CPU, parse("mmio.read.mbec=off.xo1.ev0.env=std"), steps=True)
    assert "emulates" in mmio.steps[-1].what
    assert predict(0, None, CPU, parse("msr.m48b.mbec=off.xo1.ev0.env=std"), steps=True).steps


def test_a_prediction_leaves_nothing_behind() -> None:
    vectors = [
        AccessVector(leaf=p, access=a, mbec=m, cpl=3)
        for p in Perm.all()
        for a in (Access.READ, Access.WRITE, Access.FETCH)
        for m in (Mbec.ON, Mbec.OFF)
    ]
    first = [predict(18, None, CPU, v).outcome for v in vectors]
    assert [predict(18, None, CPU, v).outcome for v in reversed(vectors)] == first[::-1]


def test_virtual_cpu() -> None:
    machine = AccessVector().machine
    for k, on in ((15, False), (16, True)):
        assert virtual_cpu(k, True, CPU, machine).mbec == on
    v = virtual_cpu(Level.of(18), None, CPU, replace(machine, execonly_offered=False, evmcs_offered=True))
    assert (v.ept, v.mbec, v.execonly, v.ept_ad, v.advanced_info, v.maxphyaddr) == (True, True, False, True, False, 40)
    assert not virtual_cpu(18, False, CPU, replace(machine, evmcs_offered=True)).mbec
    none = virtual_cpu(18, None, CPU, replace(machine, env=parse("host.param.env=ept0").machine.env))
    assert (none.ept, none.mbec, none.unrestricted) == (False, False, False)


def test_a_probe_that_cannot_run_its_own_frame() -> None:
    """With bit 10 in no entry KVM makes for L2, its user-mode code cannot be fetched."""
    odd = Level.without(18, 15)
    got = predict(odd, True, CPU, AccessVector(mbec=Mbec.OFF, cpl=3)).outcome
    assert got.kind is Kind.BLOCKED


def test_events_of_a_vector() -> None:
    vector = AccessVector(leaf=Perm.parse("rw-u"), access=Access.FETCH, mbec=Mbec.ON, cpl=3)
    told = events(18, None, CPU, vector)
    assert told == events(Level.of(18), None, CPU, vector)
    names = [name for name, _ in told]
    assert names.count("kvm_mmu_paging_element") == 4
    last = dict(told)["kvm_mmu_set_spte"]
    assert "(rw-xu) level 1" in last
    assert events(0, None, CPU, vector) == ()
    assert events(6, True, CPU, vector) == ()


def test_events_of_an_entry_of_the_root_and_without_paging() -> None:
    """Where the entry under test is the root's, the tables below are the vector's own; else the scaffold shares."""
    shared = [text for name, text in events(0, None, CPU, AccessVector(Mbec.OFF)) if name == "kvm_mmu_get_page"]
    own = AccessVector(Mbec.OFF, upper_level=4)
    apart = [text for name, text in events(0, None, replace(CPU, maxphyaddr=46), own) if name == "kvm_mmu_get_page"]
    narrow = [text for name, text in events(0, None, replace(CPU, maxphyaddr=39), own) if name == "kvm_mmu_get_page"]
    assert [text.split()[5] for text in shared] == ["l4", "l2", "l1"]
    assert [text.split()[5] for text in apart] == ["l4", "l3", "l2", "l1"]
    assert narrow == shared
    off = events(0, None, CPU, AccessVector(Mbec.OFF, paging=Paging.OFF))
    assert [text for name, text in off if name == "kvm_mmu_get_page"] == shared


def test_events_of_accessed_and_dirty_flags() -> None:
    names = [name for name, _ in events(0, None, CPU, AccessVector(Mbec.OFF, access=Access.WRITE, ad=True))]
    assert names.count("kvm_mmu_set_accessed_bit") == 2  # the upper entry under test and the leaf
    assert names.count("kvm_mmu_set_dirty_bit") == 1


def test_warns_of_a_vector() -> None:
    assert warns(0, None, CPU, AccessVector(Mbec.OFF)) == ()
    assert warns(0, None, CPU, AccessVector(Mbec.ON)) == ()  # the entry fails
    found = {
        w for p in Perm.all() for w in warns(18, True, CPU, AccessVector(Mbec.ON, leaf=p, upper=p, access=Access.WRITE))
    }
    assert all(w.startswith("mmu/") for w in found)
    assert found


def test_huge_pages_that_execute() -> None:
    plain = NxVector(AccessVector(Mbec.OFF, env="hugenx", leaf_level=2, upper_level=3, access=Access.FETCH))
    assert predict(0, None, CPU, plain).outcome == Outcome(Kind.DONE)
    asked = replace(plain.asked, mbec=Mbec.ON)
    assert predict(0, None, CPU, NxVector(asked)).outcome.kind is Kind.ENTRY_FAIL
    assert predict(11, True, CPU, plain).outcome.kind is Kind.BLOCKED
    small = NxVector(replace(asked, leaf=Perm.parse("rw-u")))  # a fetch is what makes KVM use small pages
    assert predict(18, True, CPU, small).outcome == Outcome(Kind.DONE)
    users = NxVector(replace(small.asked, access=Access.READ))
    got = predict(18, True, CPU, users).outcome
    assert (got.kind, got.number, got.code) == (Kind.BYPASS, 2, 0x403)
    assert "mitigation-bypassed level 2" in str(got)


def test_formats_of_the_tracepoints() -> None:
    assert ask(0, "host.taccess.env=std").note == "--- --x w-- w-x -u- -ux wu- wux"
    assert ask(9, "host.taccess.env=std").code != ask(8, "host.taccess.env=std").code
    assert ask(14, "host.tspte.env=std").note == "gfn %llx spte %llx (%s%s%s%s%s) level %d at %llx"


@pytest.mark.parametrize(
    ("level", "param", "env", "bits"),
    [(0, None, "std", 0), (5, True, "std", 0), (6, False, "std", 0), (6, True, "std", 0x400), (18, None, "std", 0x400),
     (18, True, "cpu0", 0), (18, True, "ept0", 0), (18, True, "eptad0", 0x400)],
)  # fmt: skip
def test_what_is_left_in_a_table_that_goes(level: int, param: bool | None, env: str, bits: int) -> None:
    """The mark of a removed entry has bit 10, which a guest with MBEC may execute from."""
    told = predict(level, param, CPU, HostVector("removed", env), steps=True)
    assert (told.outcome.kind, told.outcome.code) == (Kind.BYPASS if bits else Kind.DONE, bits)
    assert [step.patch for step in told.steps] == ([] if env == "ept0" else [6 if bits else 0, 0])
    assert predict(level, param, CPU, HostVector("removed", env)).outcome == told.outcome


@pytest.mark.parametrize(
    ("level", "param", "env", "kept"),
    [(0, None, "std", True), (3, True, "std", True), (5, True, "std", True), (6, False, "std", True),
     (6, True, "std", False), (17, None, "std", True), (18, None, "std", False), (18, True, "cpu0", True)],
)  # fmt: skip
def test_a_parameter_once_cleared_stays_so(level: int, param: bool | None, env: str, kept: bool) -> None:
    """vmx_hardware_setup clears kvm.ko's own variable, which nothing sets again when kvm-intel.ko is loaded anew."""
    told = predict(level, param, CPU, HostVector("reload", env), steps=True)
    assert told.outcome.note == ("" if kept else "Y before, N behind")
    assert [step.patch for step in told.steps] == ([] if kept else [6])
    allowed = sdm.allowed(CPU, HostVector("reload", env))
    assert [a.outcome.kind is told.outcome.kind for a in allowed] == [kept]  # type: ignore[union-attr]


def test_the_emulators_walk_is_among_the_steps() -> None:
    """KVM's emulator writes for L2: L1's leaf forbids it, and the walk that finds so is the emulator's, as a user."""
    vector = AccessVector(Mbec.OFF, leaf=Perm(True, False, True, False), access=Access.EMUWRITE)
    told = predict(0, None, CPU, vector, steps=True)
    assert told.outcome.kind is Kind.VIOLATION
    assert ("x86.c translate_nested_gpa", "the emulator walks EPT12, error code 0x6") in [
        (step.where, step.what) for step in told.steps
    ]


def test_module_parameters_of_the_environment_decide_what_l1_is_offered() -> None:
    def offered(env: str) -> int:
        return ask(18, f"msr.m48b.mbec=on.xo1.ev0.env={env}", True).code >> 32

    plain = offered("std")
    assert plain & (1 << 7 | 1 << 5 | 1) == 1 << 7 | 1 << 5 | 1
    assert plain ^ offered("ug0") == 1 << 7
    assert plain ^ offered("vpid0") == 1 << 5
    assert plain ^ offered("flex0") == 1
    assert {offered(env) for env in ("pml0", "shadow0", "lax")} == {plain}


def test_without_unrestricted_guest_an_l2_with_paging_off_is_no_guest_state() -> None:
    seen = ask(0, "e4k.l1=rwxu.fetch.pgoff.mbec=off.env=ug0")
    assert (seen.kind, seen.number, seen.code) == (Kind.ENTRY_EXIT, 33, 0)
    assert ask(0, "e4k.l1=rwxu.fetch.pgoff.mbec=off").kind is Kind.DONE
