"""Mutants of the mirror: one small wrong thing each, made on the syntax tree of a mirror module.

A gate (``has(k)``) is dropped or forced, a branch or a returned condition inverted, one bit of a mask flipped; those of
``structure`` take statements out and put things in one another's place. What only tells (``narrate``, ``trace``, and an
``if`` around nothing else) is no semantics and is left alone.
"""

from __future__ import annotations

import ast
import importlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import InputError
from harness.oracle.mutate import structure
from harness.oracle.mutate.telling import narrates, tells

MODULES: Final = (
    "include.asm.hyperv_tlfs", "include.asm.kvm_host", "include.asm.kvm_host_role", "include.asm.vmx",
    "mmu.mmu", "mmu.mmu_fault", "mmu.mmu_internal", "mmu.mmu_page", "mmu.mmu_role", "mmu.mmu_sync", "mmu.mmutrace",
    "mmu.paging_tmpl", "mmu.spte", "mmu.spte_h", "mmu.tdp_iter_h", "mmu.tdp_mmu", "mmu_h",
    "virt.kvm_main", "virt.kvm_main_slots",
    "vmx.capabilities", "vmx.hyperv", "vmx.hyperv_evmcs_h", "vmx.main", "vmx.nested", "vmx.nested_ctls",
    "vmx.nested_evmcs", "vmx.nested_h", "vmx.vmx", "vmx.vmx_h",
    "x86", "x86_emulate", "x86_slots",
)  # fmt: skip
BITS_MAX: Final = 64  # of one constant that are flipped
KINDS: Final = ("gate", "branch", "mask", "constant", *structure.KINDS)


@dataclass(frozen=True, slots=True)
class Mutant:
    """The mutant is one change: the ``site``-th possible one of ``module``, in ``function`` (empty: at import).

    Those of ``structure`` are counted apart.
    """

    module: str
    site: int
    line: int
    function: str
    kind: str  # of KINDS
    what: str
    patch: int = 0  # whose gate
    nth: int = 1  # of those in the function with the same words

    @property
    def place(self) -> str:
        """The place is a file and a line of it."""
        return f"kvmodel/{self.module.replace('.', '/')}.py:{self.line}"

    @property
    def key(self) -> str:
        """The table of equivalent mutants calls it so: there is no line in it, so that it survives edits elsewhere."""
        place = f"{self.module}.{self.function}" if self.function else self.module
        return f"{place}: {self.what}" + (f" ({self.nth})" if self.nth > 1 else "")

    @property
    def identity(self) -> str:
        """The identity is of one mutant of one source."""
        return f"{self.module}:{'structure.' if self.kind in structure.KINDS else ''}{self.site}"

    def __str__(self) -> str:
        return f"{self.place} {self.function or '(import)'}: {self.what}"


def source(module: str) -> Path:
    """The function gives the file of a mirror module."""
    file = importlib.import_module(f"kvmodel.{module}").__file__
    assert file is not None
    return Path(file)


def _tree(module: str) -> ast.Module:
    return ast.parse(source(module).read_text(encoding="utf-8"))


def named(names: Sequence[str]) -> list[str]:
    """The function gives the modules that ``names`` mean: ``mmu.spte`` is one, ``spte`` all whose last part it is.

    Raises InputError for a name that the mirror does not have.
    """
    known: dict[str, list[str]] = {}
    for module in MODULES:
        for short in {module, module.rpartition(".")[2]}:
            known.setdefault(short, []).append(module)
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"--only: the mirror has no module {unknown[0]!r}; it has {', '.join(MODULES)}")
    return [module for name in names for module in known[name]]


def _upper(target: ast.expr) -> str | None:
    name = target.id if isinstance(target, ast.Name) else target.attr if isinstance(target, ast.Attribute) else ""
    return name if name.strip("_") and name.upper() == name else None


class _Sites(ast.NodeTransformer):
    """The object walks a module in a fixed order; it changes the site numbered ``apply``, or else lists all."""

    def __init__(self, module: str, values: dict[str, int], apply: int = -1) -> None:
        self.module, self.values, self.apply = module, values, apply
        self.found: list[Mutant] = []
        self._function: list[str] = []

    def _site(self, node: ast.expr | ast.stmt, kind: str, what: str, patch: int = 0) -> bool:
        number = len(self.found)
        function = ".".join(self._function)
        nth = 1 + sum(m.function == function and m.what == what for m in self.found)
        self.found.append(Mutant(self.module, number, node.lineno, function, kind, what, patch, nth))
        return number == self.apply

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._function.append(node.name)
        if node.body and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant):
            node.body[1:] = [s for s in (self.visit(n) for n in node.body[1:]) if s is not None]
        else:
            node.body = [s for s in (self.visit(n) for n in node.body) if s is not None]
        self._function.pop()
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self._function.append(node.name)
        node.body = [self.visit(n) for n in node.body]
        self._function.pop()
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node
        if tells(node):
            return node
        node.test = self._condition(node.test)
        node.body = [self.visit(n) for n in node.body]
        node.orelse = [self.visit(n) for n in node.orelse]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return node if narrates(node) else self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        node.test = self._condition(node.test)
        node.body, node.orelse = self.visit(node.body), self.visit(node.orelse)
        return node

    def visit_While(self, node: ast.While) -> ast.AST:
        if not isinstance(node.test, ast.Constant):
            node.test = self._condition(node.test)
        node.body = [self.visit(n) for n in node.body]
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        if isinstance(node.value, (ast.Compare, ast.BoolOp, ast.UnaryOp)) and not isinstance(
            getattr(node.value, "op", None), (ast.USub, ast.Invert)
        ):
            node.value = self._condition(node.value)
            return node
        return self.generic_visit(node)

    def _condition(self, test: ast.expr) -> ast.expr:
        """The whole is inverted, and each part of a conjunction or disjunction."""
        gate = isinstance(test, ast.Call) and self._gate(test)
        if not gate and self._site(test, "branch", f"inverted: {ast.unparse(test)}"):
            return ast.copy_location(ast.UnaryOp(ast.Not(), self.visit(test)), test)
        if isinstance(test, ast.BoolOp):
            for n, part in enumerate(test.values):
                if not (isinstance(part, ast.Call) and self._gate(part)) and self._site(
                    part, "branch", f"inverted: {ast.unparse(part)}"
                ):
                    part = ast.copy_location(ast.UnaryOp(ast.Not(), part), part)
                test.values[n] = self.visit(part)
            return test
        visited: ast.expr = self.visit(test)
        return visited

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        node.ifs = [self._condition(test) for test in node.ifs]
        node.iter = self.visit(node.iter)
        return node

    @staticmethod
    def _gate(node: ast.Call) -> bool:
        return isinstance(node.func, ast.Attribute) and node.func.attr == "has" and len(node.args) == 1

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if self._gate(node) and isinstance(node.args[0], ast.Constant):
            patch = node.args[0].value
            assert isinstance(patch, int)
            for value, what in ((False, "dropped"), (True, "forced")):
                if self._site(node, "gate", f"{what}: gate of patch {patch}", patch):
                    return ast.copy_location(ast.Constant(value), node)
            return node
        if isinstance(node.func, ast.Attribute) and node.func.attr == "append" and self._function:
            return node
        return self.generic_visit(node)

    def _bits(self, node: ast.stmt, name: str, value: ast.expr) -> ast.expr:
        """Each set bit of a constant is flipped, and the one above where 64 bits have one."""
        known = self.values.get(name)
        if known is None or isinstance(known, bool):
            return value
        above = min(abs(known).bit_length(), BITS_MAX - 1)
        for bit in [1 << n for n in range(BITS_MAX) if abs(known) >> n & 1 or n == above]:
            if self._site(node, "constant", f"{name}: bit {bit.bit_length() - 1} flipped"):
                return ast.copy_location(ast.BinOp(value, ast.BitXor(), ast.Constant(bit)), value)
        return value

    def _assign(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign, target: ast.expr) -> ast.AST:
        name = _upper(target)
        in_class = len(self._function) == 2 and self._function[1] == "__init__"
        if isinstance(node, ast.AugAssign) and name and in_class:
            # Flipped in what comes of it: a bit that the target has already is not changed by what is ORed to it.
            read = ast.copy_location(ast.parse(ast.unparse(target), mode="eval").body, target)
            whole = ast.copy_location(ast.BinOp(read, node.op, self.visit(node.value)), node.value)
            flipped = self._bits(node, name, whole)
            return node if flipped is whole else ast.copy_location(ast.Assign([target], flipped), node)
        if node.value is not None and name and (not self._function or in_class):
            node.value = self._bits(node, name, self.visit(node.value) if in_class else node.value)
            return node
        return self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        return self._assign(node, node.targets[0])

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        return self._assign(node, node.target)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        return self._assign(node, node.target)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if self._function and isinstance(node.op, (ast.BitAnd, ast.BitOr, ast.LShift, ast.RShift)):
            for side in ("left", "right"):
                operand = getattr(node, side)
                if isinstance(operand, ast.Constant) and type(operand.value) is int:
                    for bit in {operand.value & -operand.value or 1, 1 << operand.value.bit_length()}:
                        if self._site(node, "mask", f"{ast.unparse(node)}: {operand.value ^ bit:#x} for its constant"):
                            setattr(node, side, ast.copy_location(ast.Constant(operand.value ^ bit), operand))
                            return node
                elif (
                    isinstance(operand, (ast.Name, ast.Attribute))
                    and _upper(operand)
                    and side == "right"
                    and isinstance(node.op, ast.BitAnd)
                    and self._site(node, "mask", f"{ast.unparse(node)}: mask gone")
                ):
                    return ast.copy_location(ast.Constant(0), node)
        return self.generic_visit(node)


def values(module: str) -> dict[str, int]:
    """The function gives the integers of a module's constants, and of its header object at the last level."""
    from kvmodel.series import LAST, Level

    loaded = importlib.import_module(f"kvmodel.{module}")
    found = {n: v for n, v in vars(loaded).items() if isinstance(v, int)}
    for factory in ("vmx_h", "spte_h"):
        if getattr(getattr(loaded, factory, None), "__module__", "") == loaded.__name__:
            header = getattr(loaded, factory)(Level.of(LAST))
            found |= {n: v for n in type(header).__slots__ if isinstance(v := getattr(header, n, None), int)}
    return found


def _changes(module: str, tree: ast.Module) -> list[structure.Change]:
    return list(structure.changes(tree, vars(importlib.import_module(f"kvmodel.{module}"))))


def _structural(module: str, tree: ast.Module) -> list[Mutant]:
    found: list[Mutant] = []
    words: Counter[tuple[str, str]] = Counter()
    for site, change in enumerate(_changes(module, tree)):
        words[change.function, change.what] += 1
        nth = words[change.function, change.what]
        found.append(Mutant(module, site, change.line, change.function, change.kind, change.what, nth=nth))
    return found


def mutants(modules: Sequence[str] = MODULES) -> list[Mutant]:
    """The function gives every mutant of the mirror, in the order of the files."""
    found: list[Mutant] = []
    for module in modules:
        sites = _Sites(module, values(module))
        sites.visit(_tree(module))
        found += sites.found
        found += _structural(module, _tree(module))
    return found


def mutated(mutant: Mutant, known: dict[str, int] | None = None) -> ast.Module:
    """The function gives the syntax tree of the mutant's module with its change in it."""
    tree = _tree(mutant.module)
    if mutant.kind in structure.KINDS:
        _changes(mutant.module, tree)[mutant.site].make()
        return ast.fix_missing_locations(tree)
    sites = _Sites(mutant.module, values(mutant.module) if known is None else known, mutant.site)
    changed = sites.visit(tree)
    assert isinstance(changed, ast.Module)
    return ast.fix_missing_locations(changed)
