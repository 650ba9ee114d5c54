"""Mutants: how they are made, and that a wrong mirror is caught and the right one is back afterwards."""

from __future__ import annotations

import ast
import json
import sys
from array import array
from collections import Counter
from pathlib import Path

import pytest

from harness.cli import mutate
from harness.errors import InputError, KvmirrorError
from harness.oracle.check.check import Cases, differing
from harness.oracle.mutate import hand, mutants, mutation, patches
from harness.oracle.mutate.equivalent import EQUIVALENT
from harness.oracle.mutate.kept import earlier
from harness.oracle.mutate.mutants import Mutant
from harness.oracle.mutate.mutation import Asked, CAnswers, Judge
from harness.oracle.specs import SPECS, Row
from harness.questions import core
from kvmodel import machine
from kvmodel.cpu import Cpu
from kvmodel.mmu import spte
from kvmodel.question.outcome import Kind, Outcome
from kvmodel.question.reading import parse
from kvmodel.series import Level

ID = "e4k.l1=rwxu.l2=rwxu.mt6.xb0.ub0.{}.gpuwx.guuwx.pg64.cpl3.wp1.smep0.smap0.nxe1.ad0.mbec=on.xo1.ev0.env=std"


def find(module: str, what: str, function: str = "") -> Mutant:
    (found,) = [m for m in mutants.mutants([module]) if m.what == what and (not function or m.function == function)]
    return found


def test_every_kind_of_mutant_is_made() -> None:
    found = mutants.mutants()
    assert {m.kind for m in found} == set(mutants.KINDS)
    assert {m.module for m in found} == set(mutants.MODULES)
    gates = {m.patch for m in found if m.kind == "gate"}
    assert gates == {2, 3, 6, 9, 11, 12, 13, 14, 15, 16, 17, 18}
    assert sum(m.kind == "gate" and m.what.startswith("dropped") for m in found) * 2 == sum(
        m.kind == "gate" for m in found
    )


def test_a_mutant_changes_its_line_only() -> None:
    mutant = find("mmu.spte", "dropped: gate of patch 12", "make_nonleaf_spte")
    before = ast.unparse(ast.parse(mutants.source("mmu.spte").read_text())).splitlines()
    after = ast.unparse(mutants.mutated(mutant)).splitlines()
    assert [a for a, b in zip(after, before, strict=True) if a != b] == ["    if False:"]
    assert mutant.place.startswith("kvmodel/mmu/spte.py:")


def test_telling_is_not_mutated() -> None:
    telling = ast.parse(
        "def f(vcpu, spte, mode):\n"
        "    if mode:\n"
        "        trace(vcpu, 'event', spte & 1)\n"
        "    narrate(vcpu, 'spte {}', spte & 3, by=mode and spte)\n"
        "    vcpu.warns.append(spte & 1)\n"
    )
    sites = mutants._Sites("mmu.spte", {})
    sites.visit(telling)
    assert not sites.found
    acting = ast.parse("def f(vcpu, mode):\n    if mode:\n        trace(vcpu, 'event')\n        g()\n")
    sites.visit(acting)
    assert [m.what for m in sites.found] == ["inverted: mode"]


def test_a_short_name_may_mean_more_than_one_module() -> None:
    assert mutants.named(["spte", "vmx"]) == ["mmu.spte", "include.asm.vmx", "vmx.vmx"]
    assert mutants.named(["vmx.vmx"]) == ["vmx.vmx"]
    with pytest.raises(KvmirrorError, match="no module 'nonesuch'"):
        mutants.named(["nonesuch"])


def test_explained_mutants_exist() -> None:
    found = [m.key for m in mutants.mutants()]
    keys = set(found)
    assert len(found) == len(keys)
    assert not [key for key in EQUIVALENT if key not in keys]
    assert all(EQUIVALENT.values())


def test_the_mirror_is_as_before_when_a_mutant_is_gone() -> None:
    before = {name: module for name, module in sys.modules.items() if name.startswith(("kvmodel", "harness.oracle"))}
    mutant = find("mmu.spte", "dropped: gate of patch 12", "make_nonleaf_spte")
    with mutation.swapped("mmu.spte", mutants.mutated(mutant)):
        import kvmodel.mmu.spte as changed

        assert changed is not spte
    import kvmodel.mmu.spte as again

    assert again is spte
    assert all(sys.modules[name] is module for name, module in before.items())


def test_a_function_s_code_is_back_when_a_mutant_is_gone() -> None:
    before = spte.make_nonleaf_spte.__code__
    with mutation.changed(find("mmu.spte", "dropped: gate of patch 12", "make_nonleaf_spte")):
        assert spte.make_nonleaf_spte.__code__.co_code != before.co_code
    assert spte.make_nonleaf_spte.__code__ is before


def test_who_reads_a_constant_is_found_through_those_made_of_it() -> None:
    readers = mutation.readers("ACC_WRITE_MASK")
    assert ("mmu.spte", "make_spte") in readers  # ACC_ALL is made of it
    assert ("vmx.nested", "invept_type_valid") not in readers


def asked() -> list[Asked]:
    """What the mirror says today, in the place of a run."""
    cpu = Cpu(mbec=True)
    vectors = [parse(ID.format(access)) for access in ("read", "fetch")]
    return [Asked(18, True, True, v, machine.predict(18, True, cpu, v).outcome) for v in vectors]


def test_a_wrong_mirror_is_caught_by_what_a_run_saw() -> None:
    judge = Judge(lambda _: CAnswers(), asked(), (18,))
    survivor = judge.judge(find("mmu.spte", "inverted: kvm.boot_cpu_has_bug_l1tf"))
    assert (survivor.by, survivor.caught) == ("", "")
    caught = judge.judge(find("mmu.paging_tmpl", "inverted: r != RET_PF_CONTINUE"))
    assert caught.by == "vector"
    assert caught.caught.startswith("e4k.")


def test_a_mutant_that_fails_is_caught() -> None:
    judge = Judge(lambda _: CAnswers(), asked(), (18,))
    verdict = judge.judge(find("mmu.mmu_internal", "inverted: mmu.root_direct"))
    assert verdict.by in ("failure", "vector")


def of_every_kind() -> list[Asked]:
    """A vector of each part of the space, answered as the mirror answers it."""
    parts = (core.CORE | core.BEYOND | core.TRACED).values()
    found = [next(iter(part())) for part in parts]
    return [Asked(18, True, True, v, machine.predict(18, True, Cpu(mbec=True), v).outcome) for v in found]


def test_the_mirror_imported_anew_is_not_caught() -> None:
    asked = of_every_kind()
    assert {"AccessVector", "SequenceVector", "HostVector"} <= {type(one.vector).__name__ for one in asked}
    assert Judge(lambda _: CAnswers(), asked, (18,)).control() == ("", "")
    mutate.control("", "")


def test_a_measure_that_catches_the_mirror_as_it_is_ends_the_run() -> None:
    wrong = [Asked(18, True, True, parse(ID.format("read")), Outcome(Kind.LIVELOCK))]
    by, caught = Judge(lambda _: CAnswers(), wrong, (18,)).control()
    assert by == "vector"
    with pytest.raises(KvmirrorError, match="without a mutation"):
        mutate.control(by, caught)


def test_a_mutant_that_hangs_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(mutation._Late), mutation.limited(0.05):
        while True:
            pass


def test_constants_are_held_against_the_compiler_s() -> None:
    judge = Judge(lambda _: CAnswers(constants={"VMX_EPT_READABLE_MASK": 1}), (), (18,))
    verdict = judge.judge(find("include.asm.vmx", "VMX_EPT_READABLE_MASK: bit 0 flipped"))
    assert (verdict.by, verdict.caught) == ("constant", "VMX_EPT_READABLE_MASK at level 18")


def test_a_drift_today_measures_nothing() -> None:
    wrong = [Asked(a.level, a.param, a.mbec, a.vector, Outcome(Kind.EXIT)) for a in asked()]
    assert (
        Judge(lambda _: CAnswers(), wrong, (0,)).judge(find("mmu.spte", "inverted: kvm.boot_cpu_has_bug_l1tf")).by == ""
    )


class Nothing(CAnswers):
    """An image that is asked nothing."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def close(self) -> None:
        pass


def test_a_hand_judges_what_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "Live", Nothing)
    images = {level: Path("nowhere") for level in mutation.LEVELS}
    told = json.loads(json.dumps(hand.setting(images, 10, 1, ["mmu.spte", "mmu.paging_tmpl"], asked())))
    judge = hand.make(told)
    assert judge([find("mmu.paging_tmpl", "inverted: r != RET_PF_CONTINUE").identity, ""])[0] == "vector"
    assert judge([find("mmu.spte", "inverted: kvm.boot_cpu_has_bug_l1tf").identity, ""]) == ("", "")


DIFF = """\
diff --git a/f.c b/f.c
--- a/f.c
+++ b/f.c
@@ -1,4 +1,5 @@
 int a;
-int b;
+int b = BIT(3);
+int c;
 int d;
 int e;
"""


def test_hunks_are_read_and_left_out() -> None:
    (hunk,) = patches._hunks(DIFF)
    assert hunk.path == "f.c"
    assert hunk.added == (b"int b = BIT(3);", b"int c;")
    after = b"int a;\nint b = BIT(3);\nint c;\nint d;\nint e;\n"
    assert patches._replaced(after, hunk.new, hunk.old) == b"int a;\nint b;\nint d;\nint e;\n"
    # A later patch changed the context: less of it serves.
    assert patches._replaced(after.replace(b"int a", b"int z"), hunk.new, hunk.old) is not None
    assert patches._replaced(after.replace(b"int c", b"int z"), hunk.new, hunk.old) is None
    assert patches._replaced(after + after, hunk.new, hunk.old) is None


def test_an_added_line_is_made_wrong() -> None:
    (hunk,) = patches._hunks(DIFF)
    altered = patches._altered(hunk)
    assert altered is not None
    assert altered[0] == "bit moved: int b = BIT(3);"
    assert b"int b = BIT(3 + 1);" in altered[1]


def test_levels_of_a_gate_come_first() -> None:
    assert mutation.levels(find("mmu.spte", "dropped: gate of patch 12", "make_nonleaf_spte"), (18, 0)) == [
        12,
        11,
        18,
        0,
    ]
    assert Level.of(12).has(12)


def a_batch(rows: list[Row]) -> tuple[int, Cases]:
    """The number of a check, and cases of it as the mirror answers them."""
    number = next(n for n, s in enumerate(SPECS) if s.entry == "make_nonleaf_spte")
    spec = SPECS[number]
    call = spec.mirror(spec.states[0].side(Level.of(18)))
    words = array("Q", [w for row in rows for w in call(*row)])
    batch = Cases(spec.states[0], rows, words, bytearray(len(rows)))
    assert not differing(spec, (batch.out, batch.status), batch)
    return number, batch


def test_a_batch_that_differs_catches() -> None:
    number, batch = a_batch([(0x1000, 0), (0x2000, 1)])
    judge = Judge(lambda _: CAnswers(batches={(number, 0): batch}), (), (18,))
    mutant = find("mmu.spte", "inverted: ad_disabled", "make_nonleaf_spte")
    verdict = judge.judge(mutant)
    assert verdict.by == "check"
    assert verdict.caught.startswith("make_nonleaf_spte(")


def test_what_caught_a_mutant_once_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    number, batch = a_batch([(n << 12, 0) for n in range(100)])
    judge = Judge(lambda _: CAnswers(batches={(number, 0): batch}), asked(), (18,))
    inverted = find("mmu.spte", "inverted: ad_disabled", "make_nonleaf_spte")
    nothing = find("mmu.spte", "inverted: kvm.boot_cpu_has_bug_l1tf")
    everywhere = judge.judge(nothing, "make_nonleaf_spte(0x7000, 0x0) at level 18")
    assert everywhere.by == ""  # it was tried with all the rest

    def never(_: object) -> None:
        raise AssertionError("all was tried")

    monkeypatch.setattr(judge, "_meeting", never)
    verdict = judge.judge(inverted, "make_nonleaf_spte(0x7000, 0x0) at level 18")
    assert (verdict.by, verdict.caught) == ("check", "make_nonleaf_spte(0x7000, 0x0) at level 18")
    vector = f"{ID.format('read')} at level 18, parameter 1"
    assert judge.judge(find("mmu.paging_tmpl", "inverted: r != RET_PF_CONTINUE"), vector).caught == vector


def test_cases_are_taken_from_all_of_a_batch() -> None:
    number, batch = a_batch([(n << 12, 0) for n in range(1000)])
    answers = CAnswers(batches={(number, 0): batch})
    few = answers.some((number, 0), 40)
    assert few.rows[0] == (0, 0)
    assert few.rows[-1] == (975 << 12, 0)
    assert list(few.out) == [batch.out[n] for n in range(0, 1000, 25)]
    assert answers.some((number, 0), None).out == answers.some((number, 0), 2000).out == batch.out


def test_verdicts_of_an_earlier_run_are_read(tmp_path: Path) -> None:
    file = tmp_path / "verdicts"
    file.write_text('{"mirror": "another", "of": []}\n["mmu.spte:3", "check", "f(0x1) at level 0"]\n["mmu.spte:4", "ch')
    assert earlier(file) == {"mmu.spte:3": "f(0x1) at level 0"}
    file.write_text("no verdicts\n")
    with pytest.raises(InputError, match=f"--after {file}"):
        earlier(file)
    with pytest.raises(InputError, match="--after"):
        earlier(tmp_path / "none")


def test_a_hundred_per_cent_is_all_of_them() -> None:
    score = mutate.score(Counter({"check": 2224, "": 66}), [{"reason": "none"}] * 65 + [{"reason": ""}])
    assert (score["caught"], score["unexplained"], score["score"]) == (2224, 1, 99.9)
    assert mutate.score(Counter({"check": 3, "": 1}), [{"reason": "none"}])["score"] == 100.0
