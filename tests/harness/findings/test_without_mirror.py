"""Departures of which no cause is known: one defect is one finding, two are two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harness.findings import Run, finding_json
from harness.findings.departures import Departure
from harness.findings.group import Finding, group
from harness.findings.without_mirror import is_of
from harness.results import Journal
from kvmodel.question.outcome import Kind, Outcome, Place
from kvmodel.question.vector import Access, AccessVector, ClientVector, Evmcs, GuestPerm, Mbec, Vector
from kvmodel.question.vm_entry import VmEntryVector, changes
from tests.golden import doors, stored

TARGET, MMIO = Place("target"), Place("mmio")


def violation(code: int, gla: Place = TARGET) -> Outcome:
    return Outcome(Kind.VIOLATION, code, gpa=TARGET, gla=gla)


def departure(
    vector: Vector, seen: Outcome, allowed: Outcome, level: int = 0, rule: str = "ept-permission"
) -> Departure:
    return Departure(vector, (level, "unset"), "kvm", seen, (allowed,), rule, "29.3.3.2")


def made_up_exit(user: bool, writable: bool, access: Access = Access.EMUWRITE) -> Departure:
    """An exit that KVM makes up without the advanced information and with the other operand's address."""
    vector = AccessVector(Mbec.NA, access=access, gp=GuestPerm(user, writable, True))
    right = 0x182 | user << 9 | writable << 10
    return departure(vector, violation(0x182, MMIO), violation(right))


def told(found: list[Departure]) -> list[tuple[str, int]]:
    return [(str(f.symptom), len(f.departures)) for f in group(found)]


def test_a_defect_that_shows_in_several_sets_of_fields_is_one_finding() -> None:
    found = [made_up_exit(user, writable) for user in (False, True) for writable in (False, True)]
    text = "wrong exit information: an EPT violation, wrong gla and in part bits 0x600"
    assert told(found) == [(text, 4)]
    assert len({f.cause for one in found for f in group([one])}) == 1  # and it stays one whichever vectors a run has


def test_bits_that_are_always_wrong_are_told_as_such() -> None:
    found = [made_up_exit(True, True), made_up_exit(True, True, Access.EMUREAD)]
    assert told(found) == [("wrong exit information: an EPT violation, wrong bits 0x600 and gla", 2)]


def test_two_defects_that_each_show_alone_stay_two_though_an_access_has_both() -> None:
    one, other, both = (
        AccessVector(cpl=cpl, access=a) for cpl, a in ((0, Access.READ), (3, Access.READ), (3, Access.RMW))
    )
    right = violation(0x181)
    found = [
        departure(one, violation(0x1C1), right),
        departure(other, violation(0x181, MMIO), right),
        departure(both, violation(0x1C1, MMIO), right),
    ]
    assert len(group(found)) == 2
    assert sum(len(f.departures) for f in group(found)) == 3


def test_other_bits_are_another_finding() -> None:
    right = violation(0x181)
    found = [departure(AccessVector(cpl=cpl), violation(0x181 ^ bit), right) for cpl, bit in ((0, 0x40), (3, 0x8))]
    assert len(group(found)) == 2


def test_the_emulators_accesses_are_not_the_cpus_nor_a_users() -> None:
    wrong, right = violation(0x1C1), violation(0x181)
    vectors: list[Vector] = [
        AccessVector(),
        AccessVector(access=Access.EMUREAD),
        ClientVector("long", Access.READ, "u"),
    ]
    assert len(group(departure(v, wrong, right) for v in vectors)) == 3


def test_the_rules_of_one_section_are_one_where_the_answer_is_of_the_right_kind_only() -> None:
    rules = ("ept-permission", "ept-not-present")
    information = [departure(AccessVector(), violation(0x1C1), violation(0x181), rule=rule) for rule in rules]
    missed = [departure(AccessVector(), Outcome(Kind.DONE), violation(0x181), rule=rule) for rule in rules]
    assert (len(group(information)), len(group(missed))) == (1, 2)


def environments(*names: str) -> list[Finding]:
    return group(departure(AccessVector(env=name), violation(0x1C1), violation(0x181)) for name in names)


def test_a_defect_of_the_plain_host_is_not_another_in_other_environments() -> None:
    assert len(environments("std", "huge", "eptad0")) == 1
    assert len(environments("huge", "eptad0")) == 1  # the same question: what one has the other has


def accepted(field: str, rule: str, env: str, ev: Evmcs = Evmcs.ABSENT) -> Departure:
    """A VM entry that must fail and does not."""
    vector = VmEntryVector(Mbec.OFF, env=env, ev=ev, changes=changes(field))
    return departure(vector, Outcome(Kind.DONE), Outcome(Kind.ENTRY_FAIL, code=7), rule=rule)


def test_what_one_environment_makes_of_the_controls_is_one_finding_and_two_environments_make_two() -> None:
    exits, entries = "entry-exit-controls", "entry-entry-controls"
    true_ctls = [
        accepted("vm_exit_controls:c2", exits, "no_true_ctls"),
        accepted("vm_entry_controls:c2", entries, "no_true_ctls"),
    ]
    assert [(f.environments, len(f.vectors)) for f in group(true_ctls)] == [(("no_true_ctls",), 2)]
    other = accepted("vm_entry_controls:s14", entries, "no_entry_load_pat")
    assert sorted(f.environments[0] for f in group([*true_ctls, other])) == ["no_entry_load_pat", "no_true_ctls"]
    hidden = accepted("vm_exit_controls:s12", exits, "std", Evmcs.OFFERED)
    texts = sorted(f.surroundings for f in group([*true_ctls, hidden]))
    assert texts == ["only in environment no_true_ctls", "only where L1 is offered an enlightened VMCS"]
    plain = accepted("vm_exit_controls:c2", exits, "std")
    assert [len(f.vectors) for f in group([true_ctls[0], plain])] == [2]


def test_a_finding_names_its_environments() -> None:
    names = ["no_vmfunc", "no_pml", "no_mtf", "no_vpid", "std"]
    (finding,) = environments(*names)
    assert finding.environments == ("std", "no_mtf", "no_pml", "no_vmfunc", "no_vpid")
    assert finding.surroundings == "also in 4 other environments: no_mtf, no_pml, no_vmfunc and 1 more"
    assert finding_json(finding)["environments"] == list(finding.environments)
    assert "also in 4 other environments" in finding.whence
    assert environments("std")[0].surroundings == ""


def test_what_the_base_shows_is_told_apart_from_what_a_series_brings() -> None:
    wrong, right = violation(0x1C1), violation(0x181)
    known, new = AccessVector(), AccessVector(cpl=3)
    found = [departure(known, wrong, right, level) for level in (0, 1, 2)] + [departure(new, wrong, right, 2)]
    of_base, brought = group(found)
    assert (of_base.of_base, of_base.vectors, len(of_base.departures)) == (True, [known], 3)
    assert (brought.of_base, brought.vectors, brought.first_level) == (False, [new], 2)


def test_a_smaller_vector_shows_the_same_by_what_the_finding_is_known_by() -> None:
    (finding,) = group(made_up_exit(user, True) for user in (False, True))
    known_by = finding.key[0]
    assert is_of(made_up_exit(False, False), known_by, finding.smallest)
    assert not is_of(made_up_exit(False, False, Access.READ), known_by, finding.smallest)
    only_bits = replace(made_up_exit(True, True), seen=violation(0x182))
    assert not is_of(only_bits, known_by, finding.smallest)


def test_our_series_findings_without_the_mirror(tmp_path: Path) -> None:
    """Of a real run nine causes make nine findings, two causes one of them and one cause two.

    F2 and F6 look the same, whatever L1 does: only their patches tell them apart. F9 breaks two rules.
    """
    path = tmp_path / "journal.sqlite"
    doors.write_run(path, stored.load())
    with Journal(path) as journal:
        by_cause = Run.open(journal, 1).findings
    names = {(d.vector, d.cell, d.turn): f.name for f in by_cause for d in f.departures}
    alone = group(replace(d, predicted=None) for f in by_cause for d in f.departures)
    causes = [{names[d.vector, d.cell, d.turn] for d in f.departures} for f in alone]
    assert sorted(map(sorted, causes)) == [["F1"], ["F2", "F6"], ["F3"], ["F4"], ["F5"], ["F7"], ["F8"], ["F9"], ["F9"]]
