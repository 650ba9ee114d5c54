"""A disagreement gets its name; a vector that never ran is never agreement."""

from harness.results.verdict import Mark, judge, stands
from kvmodel.question.outcome import THEN, Allowed, Kind, NotApplicable, Outcome, not_mirrored, of_turns

DONE = Outcome(Kind.DONE)
VIOLATION = Outcome(Kind.VIOLATION, 0x184)
LOOP = Outcome(Kind.LIVELOCK)


def allows(*outcomes: Outcome) -> tuple[Allowed, ...]:
    return tuple(Allowed(o, "rule", "section") for o in outcomes)


def test_three_voices_agree() -> None:
    assert judge(DONE, allows(DONE), DONE).marks == Mark.AGREE
    assert judge(DONE, allows(VIOLATION, DONE), DONE).marks == Mark.AGREE


def test_drift_and_finding_are_told_apart() -> None:
    assert judge(VIOLATION, allows(DONE), DONE).marks == Mark.DRIFT
    assert judge(LOOP, allows(DONE), LOOP).marks == Mark.FINDING
    assert judge(DONE, allows(DONE), LOOP).marks == Mark.FINDING | Mark.DRIFT


def test_a_vector_that_never_ran_is_blocked_and_drift_where_unpredicted() -> None:
    blocked = Outcome(Kind.BLOCKED, note="L1 livelocks")
    assert judge(blocked, allows(DONE), blocked).marks == Mark.BLOCKED
    assert judge(DONE, allows(DONE), blocked).marks == Mark.BLOCKED | Mark.DRIFT
    assert judge(None, allows(DONE), Outcome(Kind.SCAFFOLD)).marks == Mark.BLOCKED
    assert judge(Outcome(Kind.HOST), allows(DONE), blocked).marks == Mark.BLOCKED


def test_not_applicable_names_its_rule() -> None:
    verdict = judge(DONE, NotApplicable("no-1g", "the CPU has no 1 GiB pages"), DONE)
    assert (verdict.marks, verdict.rule) == (Mark.NOT_APPLICABLE, "no-1g")


def test_entry_failures_are_counted_apart() -> None:
    failed = Outcome(Kind.ENTRY_FAIL, 7)
    assert judge(failed, allows(failed), failed).marks == Mark.ENTRY_FAILURE


SILENT = not_mirrored("vmx/nested.c nested_vmx_check_host_state")


def test_where_the_mirror_does_not_speak_the_manual_alone_does() -> None:
    assert judge(SILENT, allows(DONE), DONE).marks == Mark.NOT_MIRRORED
    assert judge(SILENT, allows(DONE), LOOP).marks == Mark.NOT_MIRRORED | Mark.FINDING
    assert judge(SILENT, allows(DONE), Outcome(Kind.BLOCKED)).marks == Mark.NOT_MIRRORED | Mark.BLOCKED
    foreseen = judge(SILENT, allows(DONE), SILENT)
    assert (foreseen.marks, foreseen.rule) == (Mark.NOT_MIRRORED, "vmx/nested.c nested_vmx_check_host_state")


def test_a_mirror_that_falls_silent_is_held_to_the_turns_before() -> None:
    half = of_turns([DONE, SILENT, VIOLATION])
    rows = (of_turns([first, DONE, DONE]) for first in (DONE, LOOP))
    allowed = tuple(Allowed(row, THEN.join("rrr"), THEN.join("sss")) for row in rows)
    assert half.turns == (DONE, SILENT)
    assert [half.mirrors(turn) for turn in range(3)] == [True, False, False]
    assert judge(half, allowed, of_turns([DONE, DONE, DONE])).marks == Mark.NOT_MIRRORED
    assert judge(half, allowed, of_turns([LOOP, DONE, DONE])).marks == Mark.NOT_MIRRORED | Mark.DRIFT
    assert judge(half, allowed, of_turns([DONE, DONE, LOOP])).marks == Mark.NOT_MIRRORED | Mark.FINDING
    assert judge(half, allowed, half).marks == Mark.NOT_MIRRORED


def test_without_a_mirror_only_the_contract_speaks() -> None:
    assert judge(None, allows(DONE), LOOP).marks == Mark.FINDING
    assert judge(None, allows(DONE), DONE).marks == Mark.AGREE


def test_where_a_rule_stands_is_said_in_its_own_terms() -> None:
    assert stands("29.3.3") == "SDM 29.3.3"
    assert stands("Linux admin-guide/hw-vuln/multihit") == "Linux admin-guide/hw-vuln/multihit"
    assert stands("-") == "KVM's own promise"
