"""Mutants of structure: each kind on a small function of its own, and what is no mutant because it changes nothing."""

from __future__ import annotations

import ast
from collections.abc import Callable
from textwrap import dedent

import pytest

from harness.cli import mutate
from harness.errors import InputError
from harness.oracle.mutate import mutants, mutation, structure
from harness.oracle.mutate.mutants import Mutant


def shifted(gfn: int, level: int, name: str = "") -> int:
    return gfn << level


def called(flag: bool, word: int) -> int:
    return flag + word


KNOWN = {"shifted": shifted, "called": called, "min": min}


def changes(text: str) -> list[structure.Change]:
    return list(structure.changes(ast.parse(dedent(text)), KNOWN))


def words(text: str, *kinds: str) -> list[str]:
    return [c.what for c in changes(text) if c.kind in (kinds or structure.KINDS)]


def changed(text: str, what: str) -> str:
    """The source with the one change ``what`` in it."""
    tree = ast.parse(dedent(text))
    (found,) = [c for c in structure.changes(tree, KNOWN) if c.what == what]
    found.make()
    return ast.unparse(ast.fix_missing_locations(tree))


def run(source: str, *args: object) -> object:
    scope: dict[str, Callable[..., object]] = {}
    exec(source, scope)
    return scope["f"](*args)


AGE = """
    def f(young, tracked):
        answer = 'old'
        if not young:
            return 'not young'
        if tracked:
            answer = 'tracked'
        return answer
    """


def test_an_early_return_is_deleted_and_the_last_one_is_not() -> None:
    assert words(AGE, "return") == ["deleted: return 'not young'"]
    source = changed(AGE, "deleted: return 'not young'")
    assert run(source, False, True) == "tracked"
    assert run(dedent(AGE), False, True) == "not young"


def test_a_return_is_early_where_something_follows_in_any_block_around_it() -> None:
    text = """
        def f(a, b):
            for x in a:
                if x == b:
                    return x
                if not x:
                    continue
                a.remove(x)
            if b:
                return 1
            else:
                return 2
        """
    assert words(text, "return") == ["deleted: return x", "deleted: continue"]
    assert words("def f(a):\n    while a:\n        if a.pop():\n            break", "return") == ["deleted: break"]
    assert not words("def f(a):\n    while a:\n        if a.pop():\n            continue", "return")


def test_a_statement_is_deleted() -> None:
    text = """
        def f(sp, index):
            sp.spt[index] = 0
            sp.version += 1
            sp.forget(index)
            del sp.spt[index]
        """
    assert words(text, "statement") == [
        "deleted: sp.spt[index] = 0",
        "deleted: sp.version += 1",
        "deleted: sp.forget(index)",
        "deleted: del sp.spt[index]",
    ]
    assert "pass" in changed(text, "deleted: sp.forget(index)")


def test_the_assignment_that_makes_a_name_stays() -> None:
    assert words(AGE, "statement") == ["deleted: answer = 'tracked'"]
    arms = """
        def f(a, b):
            if a:
                x = 1
            else:
                x = 2
            a, y = b
            x = y
        """
    assert words(arms, "statement") == ["deleted: x = y"]
    one = "def f(a):\n    if a:\n        x = 1\n    x = 2\n    return x"
    assert not words(one, "statement")
    leaves = "def f(a):\n    if a:\n        return 0\n    else:\n        x = 1\n    x = 2\n    return x"
    assert words(leaves, "statement") == ["deleted: x = 2"]
    loop = "def f(a):\n    for n in a:\n        x = n\n    x = 2\n    return x"
    assert not words(loop, "statement")
    made = "class A:\n    def __init__(self):\n        self.x = 1\n        self.x |= 2\n        self.add(3)"
    assert words(made, "statement") == ["deleted: self.x |= 2", "deleted: self.add(3)"]


def test_arms_are_swapped_where_the_inverted_branch_is_another_mutant() -> None:
    text = """
        def f(a, b):
            if a:
                r = 1
            elif b:
                r = 2
            else:
                r = 3
            return r
        """
    assert words(text, "arms") == ["arms swapped: a, b"]
    source = changed(text, "arms swapped: a, b")
    assert [run(source, *case) for case in ((1, 0), (0, 1), (0, 0))] == [2, 1, 3]
    assert not words("def f(a):\n    if a:\n        return 1\n    else:\n        return 2", "arms")
    assert not words("def f(a, b):\n    if a:\n        return 1\n    elif b:\n        return 1\n    return 2", "arms")


def test_arms_of_cases_are_swapped() -> None:
    text = """
        def f(msr):
            match msr:
                case 1:
                    r = 'one'
                case 2:
                    r = 'two'
                case _:
                    r = 'two'
            return r
        """
    assert words(text, "arms") == ["arms swapped: 1, 2"]
    source = changed(text, "arms swapped: 1, 2")
    assert [run(source, n) for n in (1, 2, 3)] == ["two", "one", "two"]


def test_neighbouring_calls_and_what_acts_beside_a_call_are_swapped() -> None:
    text = """
        def f(sp, seen):
            seen.append(1)
            seen.append(2)
            sp.unsync = False
            seen.append(2)
            seen.append(2)
            sp.a = 1
            sp.b = 2
        """
    assert words(text, "order") == [
        "swapped: seen.append(1); seen.append(2)",
        "swapped: seen.append(2); sp.unsync = False",
        "swapped: sp.unsync = False; seen.append(2)",
        "swapped: seen.append(2); sp.a = 1",
    ]
    small = "def f(seen):\n    seen.append(1)\n    seen.append(2)\n    return seen"
    assert run(changed(small, "swapped: seen.append(1); seen.append(2)"), []) == [2, 1]


def test_what_only_counts_has_no_place_among_its_neighbours() -> None:
    text = """
        def f(vcpu, sp):
            vcpu.count("taken")
            vcpu.forget(sp)
            vcpu.warns.append("f")
            sp.unsync = False
        """
    assert not words(text, "order")
    assert len(words(text, "statement")) == 4


def test_neighbouring_guards_are_swapped_unless_their_order_is_nothing() -> None:
    text = "def f(a, b):\n    if a:\n        return 1\n    if b:\n        return 2\n    return 3"
    assert words(text, "order") == ["swapped: if a, if b"]
    source = changed(text, "swapped: if a, if b")
    assert [run(source, *case) for case in ((1, 1), (1, 0), (0, 1), (0, 0))] == [2, 1, 2, 3]
    same = "def f(a, b):\n    if a:\n        return 1\n    if b:\n        return 1\n    return 3"
    assert not words(same, "order")
    told = "def f(v, b):\n    if v:\n        trace(v, 'a')\n        return 1\n    if b:\n        return 1\n    return 3"
    assert not words(told, "order")
    one_thing = "def f(a):\n    if a == 1:\n        return 1\n    if a in (2, 3):\n        return 2\n    return 3"
    assert not words(one_thing, "order")
    stays = "def f(a, b):\n    if a:\n        a.clear()\n    if b:\n        return 2\n    return 3"
    assert not words(stays, "order")


def test_arguments_of_one_type_are_swapped() -> None:
    text = "def f(vcpu, gfn: int, name: str):\n    return shifted(gfn, 9, name)"
    assert words(text, "arguments") == ["arguments swapped: gfn, 9 of shifted"]
    assert "shifted(9, gfn, name)" in changed(text, "arguments swapped: gfn, 9 of shifted")
    assert words("def f(a, b):\n    return called(a, b)") == ["arguments swapped: a, b of called"]  # C takes a bool
    by_name = "def f(a, b, c):\n    return shifted(gfn=a, level=b, name=c)"
    assert words(by_name) == ["arguments swapped: gfn, level of shifted"]
    assert "shifted(gfn=b, level=a, name=c)" in changed(by_name, "arguments swapped: gfn, level of shifted")
    unknown = "def f(vcpu: Vcpu, gfn: int, other):\n    return vcpu.sync(vcpu, gfn, other)"
    assert words(unknown) == ["arguments swapped: gfn, other of vcpu.sync"]


def test_a_swap_that_changes_nothing_is_no_mutant() -> None:
    assert not words("def f(a):\n    return shifted(a, a)")
    assert not words("def f(a):\n    return shifted(gfn=a, level=a)")
    assert not words("def f(a, b):\n    return min(a, b)")
    assert not words("def f(a, b):\n    return shifted(*a, *b)")
    twice = "def f(a, b):\n    a.add(b)\n    a.add(b)\n    return shifted(b, b)"
    before = ast.unparse(ast.parse(twice))
    for n, change in enumerate(changes(twice)):
        assert change.what == "deleted: a.add(b)"
        tree = ast.parse(twice)
        list(structure.changes(tree, KNOWN))[n].make()
        assert ast.unparse(tree) != before
    assert len(changes(twice)) == 2


def test_telling_and_docstrings_are_left_alone() -> None:
    text = """
        def f(vcpu, a, b):
            '''A docstring.'''
            narrate(vcpu, 'from {} to {}', a, b)
            if a:
                trace(vcpu, 'event', a, b)
            trace(vcpu, 'event', b, a)
        """
    assert not words(text)


def test_functions_are_named_with_what_they_stand_in() -> None:
    text = "class A:\n    def f(self, x):\n        def g(y):\n            y.add(1)\n        x.add(g)"
    assert [(c.function, c.what) for c in changes(text)] == [
        ("A.f.g", "deleted: y.add(1)"),
        ("A.f", "deleted: x.add(g)"),
    ]


def test_every_structural_mutant_of_the_mirror_changes_the_source() -> None:
    for module in ("mmu.tdp_mmu", "mmu.mmu_sync", "vmx.hyperv"):
        before = ast.unparse(ast.parse(mutants.source(module).read_text(encoding="utf-8")))
        own = [m for m in mutants.mutants([module]) if m.kind in structure.KINDS]
        assert len(own) > 10
        for mutant in own:
            after = ast.unparse(mutants.mutated(mutant))
            assert after != before, mutant
            compile(after, module, "exec")


def test_identities_of_the_other_kinds_are_their_number_in_the_module() -> None:
    found = mutants.mutants(["mmu.spte"])
    plain = [m for m in found if m.kind not in structure.KINDS]
    assert [m.identity for m in plain] == [f"mmu.spte:{n}" for n in range(len(plain))]
    own = [m for m in found if m.kind in structure.KINDS]
    assert [m.identity for m in own] == [f"mmu.spte:structure.{n}" for n in range(len(own))]


def test_the_early_return_of_aging_is_among_them() -> None:
    keys = {m.key for m in mutants.mutants(["mmu.tdp_mmu"])}
    assert "mmu.tdp_mmu.age_gfn: deleted: return False" in keys


def test_a_structural_mutant_is_in_force_and_gone_afterwards() -> None:
    from kvmodel.mmu import spte_h

    before = spte_h.restore_acc_track_spte.__code__
    mutant = find("mmu.spte_h", "deleted: spte &= ~kvm.shadow_acc_track_mask")
    with mutation.changed(mutant):
        assert spte_h.restore_acc_track_spte.__code__.co_code != before.co_code
    assert spte_h.restore_acc_track_spte.__code__ is before


def find(module: str, what: str) -> Mutant:
    (found,) = [m for m in mutants.mutants([module]) if m.what == what]
    return found


def test_kinds_are_chosen_by_name() -> None:
    assert mutate._kinds("") == list(mutants.KINDS)
    assert mutate._kinds("order,gate") == ["order", "gate"]
    with pytest.raises(InputError, match="no mutants 'swap'"):
        mutate._kinds("swap")
