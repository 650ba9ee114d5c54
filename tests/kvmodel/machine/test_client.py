"""The small client's sequences: what KVM of each level makes of them, down to its counts."""

import pytest

from kvmodel import machine, sdm
from kvmodel.cpu import Cpu
from kvmodel.machine import vcpu
from kvmodel.question import tally
from kvmodel.question.outcome import Kind, NotApplicable, Outcome
from kvmodel.question.reading import parse
from kvmodel.question.vector import ClientSequence, UserMsrVector, VectorError
from kvmodel.series import Level
from tests.kvmodel.mirror import CPU


def ask(name: str, level: int = 18, param: bool | None = True, cpu: Cpu = CPU) -> Outcome:
    vector = parse(name)
    assert vector.id == name
    return machine.predict(level, param, cpu, vector).outcome


def counts(name: str, level: int = 18, param: bool | None = True) -> dict[str, int]:
    outcome = ask(name, level, param)
    assert outcome.kind is Kind.DONE, outcome
    return {k: n for k, n in tally.unpack(outcome.code & outcome.defined).items() if n}


def departs(name: str, level: int, param: bool | None = True) -> bool:
    """Whether the mirror predicts what the contract does not allow."""
    allowed = sdm.allowed(CPU, parse(name))
    assert not isinstance(allowed, NotApplicable)
    return not any(a.outcome.matches(ask(name, level, param)) for a in allowed)


def test_a_page_and_its_tables_are_mapped_once() -> None:
    assert counts("cli.real.pgu.m4k.read.env=std") == {"pages_4k": 2, "pf_taken": 2, "pf_fixed": 2}
    assert counts("cli.long.pgu.m4k.fetch+read+write+rmw.env=std") == {"pages_4k": 7, "pf_taken": 7, "pf_fixed": 7}
    assert counts("cli.prot.pgu.m2m.fetch.env=std") == {"pages_4k": 1, "pages_2m": 1, "pf_taken": 2, "pf_fixed": 2}


def test_a_fetch_splits_what_the_mitigation_mapped_without_execute() -> None:
    first = counts("cli.long.pgs.m2m.read.env=hugenx")
    assert (first["pages_2m"], first.get("nx_lpage_splits", 0)) == (1, 0)
    # make_spte() leaves D clear where the entry was writable: the child, which has D, is not the entry it makes
    split = {"pages_4k": 518, "nx_lpage_splits": 1, "pf_taken": 8, "pf_fixed": 8}
    assert counts("cli.long.pgs.m2m.read+fetch.env=hugenx") == split
    assert counts("cli.long.pgs.m2m.read+fetch.env=eptad0nx") == split | {"pf_fixed": 7, "pf_spurious": 1}
    assert counts("cli.long.pgs.m2m.fetch+read.env=hugenx")["pages_4k"] == 7
    assert not departs("cli.long.pgu.m2m.read+fetch.env=hugenx", 18)


def test_a_fetch_through_a_large_mapping_is_a_departure() -> None:
    vector = parse("cli.long.pgu.m2m.read+fetch.env=hugenx")
    (allowed,) = sdm.allowed(CPU, vector)  # type: ignore[misc]
    assert allowed.rule == "host-nx-huge-pages"
    assert allowed.outcome.matches(Outcome(Kind.DONE, tally.pack({"pages_4k": 518}), defined=tally.ALL))
    assert not allowed.outcome.matches(Outcome(Kind.DONE, tally.pack({"pages_2m": 1}), defined=tally.ALL))
    (after_logging,) = sdm.allowed(CPU, parse("cli.long.pgu.m2m.fetch+log+unlog+read.env=hugenx"))  # type: ignore[misc]
    assert after_logging.outcome.defined == 0


def test_aging_without_accessed_bits_costs_one_fast_fault_and_with_them_none() -> None:
    assert counts("cli.long.pgs.m4k.read+age+read.env=std")["pf_taken"] == 7
    aged = counts("cli.long.pgs.m4k.read+age+read.env=eptad0")
    assert (aged["pf_taken"], aged["pf_fast"]) == (8, 1)
    assert counts("cli.long.pgs.m4k.age+read+age+age.env=eptad0")["pf_taken"] == 7


@pytest.mark.parametrize(("level", "param", "taken"), [(0, None, 8), (18, False, 8), (15, True, 9), (18, True, 9)])
def test_the_user_execute_bit_is_not_among_the_saved(level: int, param: bool | None, taken: int) -> None:
    """Patch 13 widens access tracking's mask, not its saved bits: restored without bit 10, the fetch faults again."""
    assert counts("cli.long.pgu.m4k.fetch+age+fetch.env=eptad0", level, param)["pf_taken"] == taken


def test_dirty_logging_splits_and_its_end_lets_the_large_page_come_again() -> None:
    name = "cli.long.pgs.m2m.read+log+write{}.env=eptad0"
    assert counts(name.format("")) == {
        "pages_4k": 518, "pf_taken": 8, "pf_fixed": 8, "pf_fast": 1, "dirty": 1
    }  # fmt: skip
    assert "dirty" not in counts(name.format("+sync"))
    assert counts(name.format("+sync+write"))["dirty"] == 1
    assert counts(name.format("+log+sync"))["pages_4k"] == 518
    assert counts(name.format("+unlog+read"))["pages_2m"] == 1
    assert counts("cli.long.pgs.m4k.read+log+write+unlog+read.env=eptad0")["pages_4k"] == 7
    assert counts("cli.long.pgs.m2m.log+fetch+write.env=eptad0")["dirty"] == 1
    assert counts("cli.long.pgs.m2m.fetch+log+unlog+read.env=hugenx").get("nx_lpage_splits", 0) == 0


def test_with_page_modification_logging_the_dirty_bit_is_cleared_instead() -> None:
    outcome = ask("cli.long.pgs.m2m.write+log+write+sync+write.env=std")
    assert outcome.kind is Kind.DONE
    assert not outcome.defined & tally.MASK["dirty"]
    assert tally.unpack(outcome.code)["pf_fast"] == 0


def test_the_contract_wants_each_write_in_the_log() -> None:
    (allowed,) = sdm.allowed(CPU, parse("cli.long.pgu.m4k.read+log+write.env=eptad0"))  # type: ignore[misc]
    assert (allowed.rule, tally.unpack(allowed.outcome.code)["dirty"]) == ("host-dirty-log", 1)
    assert not allowed.outcome.matches(Outcome(Kind.DONE, 0, defined=tally.ALL))
    for quiet in ("write+log+read", "log+write+sync", "log+write+unlog"):
        (allowed,) = sdm.allowed(CPU, parse(f"cli.long.pgu.m4k.{quiet}.env=eptad0"))  # type: ignore[misc]
        assert allowed.rule == "own-access"


SPLIT_AGED = "cli.long.pgu.m2m.read+age+log+{}.env=eptad0nx"


@pytest.mark.parametrize(
    ("then", "level", "param", "kind"),
    [
        ("write", 12, True, Kind.DONE),
        ("write", 13, True, Kind.HOST),
        ("write", 18, True, Kind.HOST),
        ("write", 18, False, Kind.DONE),
        ("age", 12, True, Kind.DONE),
        ("age", 13, True, Kind.HOST),
        ("age", 18, None, Kind.HOST),
        ("fetch", 18, True, Kind.DONE),
    ],
)
def test_an_aged_large_page_split_with_user_execute(then: str, level: int, param: bool | None, kind: Kind) -> None:
    """A child with bit 10 is no longer taken for an access-tracked one: from patch 13 on, since 12 sets the bit."""
    outcome = ask(SPLIT_AGED.format(then), level, param)
    assert outcome.kind is kind
    if kind is Kind.HOST:
        assert outcome.number == 4
        assert ("mark_spte_for_access_track" if then == "age" else "errno 22") in outcome.note
        assert departs(SPLIT_AGED.format(then), level, param)


def test_a_livelock_names_its_step() -> None:
    assert ask("cli.long.pgu.m4k.read+fetch.env=std", 6).number == 2
    assert ask("cli.prot.pgu.m4k.read.env=std", 6) == ask("cli.real.pgu.m4k.read.env=std", 6)
    assert ask("cli.long.pgs.m4k.read+fetch.env=std", 6).kind is Kind.DONE


@pytest.mark.parametrize("level", [0, 8, 12, 13, 18])
def test_mmio_entries_are_made_anew_when_the_slots_change(level: int) -> None:
    for between, made in (("", 1), ("slot+", 2), ("slots+", 2), ("slots+slots+", 2)):
        told = counts(f"cli.long.pgs.m4k.mread+{between}mread.env=std", level, True if level > 3 else None)
        assert (told["pf_mmio_spte_created"], told["mmio_exits"]) == (made, 2)


def test_a_load_is_left_as_it_was_found() -> None:
    asked = ("cli.long.pgs.m4k.mwrite+slots+mwrite.env=eptad0nx", SPLIT_AGED.format("age"))
    first = [ask(name) for name in asked]
    assert [ask(name) for name in asked] == first
    assert vcpu.loaded(Level.of(18), True, CPU, "eptad0nx").warns == []


def test_steps_are_told() -> None:
    told = machine.predict(18, True, CPU, parse(SPLIT_AGED.format("write")), steps=True)
    assert any(step.where == "user space" and "age" in step.what for step in told.steps)
    assert "handle_mmio_page_fault" in told.steps[-1].where
    by = {step.where.split()[1]: step.patch for step in told.steps if step.where.startswith("mmu/spte.c")}
    assert (by["mark_spte_for_access_track"], by["make_huge_page_split_spte"]) == (0, 12)
    aged = machine.predict(18, True, CPU, parse("cli.long.pgu.m4k.fetch+age.env=eptad0"), steps=True).steps[-1]
    assert (aged.where, aged.patch) == ("mmu/spte.c mark_spte_for_access_track", 13)


def test_shadow_paging_is_not_followed() -> None:
    outcome = ask("cli.real.pgu.m4k.read.env=ept0")
    assert (outcome.kind, outcome.defined) == (Kind.DONE, 0)


@pytest.mark.parametrize(
    ("name", "level", "value_has", "refused"),
    [
        ("umsr.m48b.c54.env=std", 18, False, 0),
        ("umsr.m48b.c54+kvm.env=std", 18, True, 0),
        ("umsr.m48b.c54+s54.env=std", 18, True, 0),
        ("umsr.m48b.c54+s54.env=std", 15, False, 2),
        ("umsr.m48b.s55.env=std", 18, True, 1),
    ],
)
def test_user_space_takes_and_asks_back(name: str, level: int, value_has: bool, refused: int) -> None:
    outcome = ask(name, level)
    assert outcome.kind is Kind.VALUE
    assert (bool(outcome.code >> 54 & 1), outcome.code >> 64) == (value_has, refused)
    assert not departs(name, level)


def test_user_space_and_the_other_capability_msr() -> None:
    assert ask("umsr.m48c.c0.env=std").code & 1 == 0
    assert ask("umsr.m48c.c0+s8.env=std").code >> 64 == 2
    told = machine.predict(18, True, CPU, parse("umsr.m48c.c0.env=std"), steps=True).steps
    assert "vmx_restore_vmx_ept_vpid_cap" in told[0].where
    rules = [a.rule for a in sdm.allowed(CPU, parse("umsr.m48c.c0+kvm.env=std"))]  # type: ignore[union-attr]
    assert rules == ["msr-ept-cap"]
    (taken,) = sdm.allowed(CPU, parse("umsr.m48c.c0.env=std"))  # type: ignore[misc]
    assert taken.rule == "host-msr-taken"
    assert not taken.outcome.matches(Outcome(Kind.VALUE, 1))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cli.long.pgu.m4k.fetch+sleep.env=std", "sleep"),
        ("cli.prot.pgs.m4k.fetch.env=std", "user page"),
        ("cli.real.pgu.m4k.mread.env=std", "64 KiB"),
        ("cli.long.pgu.m4k.read.env=lab", "lab"),
        ("umsr.m48b.x1.env=std", "do not go together"),
    ],
)
def test_bad_ids_say_why(name: str, reason: str) -> None:
    with pytest.raises(VectorError, match=reason):
        parse(name)


def test_only_the_environment_counts() -> None:
    for vector in (ClientSequence(env="eptad0nx"), UserMsrVector(env="eptad0nx")):
        assert vector.machine.env.nx_huge_pages
        assert not vector.machine.env.eptad


def test_tally_words() -> None:
    assert tally.unpack(tally.pack({"pages_4k": 5000, "dirty": 3, "exits": 9}))["pages_4k"] == 4095
    assert tally.text(tally.pack({"pages_2m": 1, "dirty": 3})) == "pages_2m 1, dirty 3"
    assert tally.pack({}) == 0


@pytest.mark.parametrize("steps", ["read+gone+read+back+read", "write+ronly+write", "moved+rmw"])
def test_a_slot_that_is_moved_is_not_mirrored(steps: str) -> None:
    vector = parse(f"cli.long.pgu.m4k.{steps}.env=std")
    found = machine.predict(0, None, Cpu(), vector).outcome
    assert found.kind is Kind.NOT_MIRRORED and "kvm_set_memslot" in found.note


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ("gone+fetch", "write back before fetch"),
        ("moved+read+fetch", "write back before fetch"),
        ("log+gone+read", "is not logged too"),
        ("ronly+write+sync", "is not logged too"),
    ],
)
def test_what_a_moved_slot_does_not_go_with(steps: str, told: str) -> None:
    with pytest.raises(VectorError, match=told):
        parse(f"cli.prot.pgu.m2m.{steps}.env=std")


def test_code_is_fetched_where_memory_is_back_or_only_read() -> None:
    for steps in ("gone+read+back+fetch", "ronly+fetch", "moved+ronly+fetch"):
        name = f"cli.long.pgu.m4k.{steps}.env=std"
        assert parse(name).id == name
