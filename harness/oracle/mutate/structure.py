"""A mirror module's structure is changed: a statement or an early return goes, or two things change places.

What changes places are the arms of neighbouring branches, neighbouring guards and calls, and neighbouring arguments of
one type. A change is made only where it could change an answer: what is swapped differs, a return that goes has
something after it, and the name that an assignment would have bound is bound already. The arms of a plain ``if``
and ``else`` stay, as the inverted branch is that very mutant.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from harness.oracle.mutate.telling import narrates, tells

KINDS: Final = ("statement", "return", "arms", "order", "arguments")
_SYMMETRIC: Final = frozenset({"min", "max"})  # builtins that give the same whatever the order
_INTEGERS: Final = frozenset({"int", "bool"})  # C takes the one for the other
_JUMPS: Final = (ast.Return, ast.Continue, ast.Break, ast.Raise)


@dataclass(frozen=True, slots=True)
class Change:
    """This is a change that ``make`` does to the syntax tree in one place, within ``function`` (``Vcpu.count``)."""

    line: int
    function: str
    kind: str
    what: str
    make: Callable[[], None]


def changes(tree: ast.Module, known: Mapping[str, object]) -> Iterator[Change]:
    """Every change of the functions in ``tree`` comes in the order of the file; ``known`` is the module's namespace."""
    yield from _within(tree.body, (), known)


def _within(body: Sequence[ast.stmt], names: tuple[str, ...], known: Mapping[str, object]) -> Iterator[Change]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _within(node.body, (*names, node.name), known)
        elif isinstance(node, ast.FunctionDef):
            yield from _Function(node, (*names, node.name), known).changes()


@dataclass(frozen=True, slots=True)
class _Follows:
    """More of the function, or of the loop's body, is run after a statement."""

    function: bool = False
    loop: bool = False


class _Function:
    """The object finds the changes of one function, and of the functions within it."""

    def __init__(self, node: ast.FunctionDef, names: tuple[str, ...], known: Mapping[str, object]) -> None:
        self._node, self._names, self._known = node, names, known
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        self._types = {a.arg: ast.unparse(a.annotation) for a in arguments if a.annotation is not None}
        self._parameters = {a.arg for a in (*arguments, node.args.vararg, node.args.kwarg) if a is not None}

    def changes(self) -> Iterator[Change]:
        """The changes come in the order of the file."""
        found: list[Change] = []
        self._block(self._node.body, _Follows(), self._parameters, found)
        yield from found

    def _note(self, found: list[Change], node: ast.stmt, kind: str, what: str, make: Callable[[], None]) -> None:
        found.append(Change(node.lineno, ".".join(self._names), kind, what, make))

    def _block(self, block: list[ast.stmt], after: _Follows, bound: set[str], found: list[Change]) -> set[str] | None:
        """The changes of a block are noted. Returned are the names bound at its end, None where it leaves."""
        bound = set(bound)
        for n, node in enumerate(block):
            last = n + 1 == len(block)
            follows = after if last else _Follows(True, True)
            if isinstance(node, ast.FunctionDef):
                found += _Function(node, (*self._names, node.name), self._known).changes()
            elif not (narrates(node) or (isinstance(node, ast.If) and tells(node)) or _documents(node)):
                self._delete(block, n, follows, bound, found)
                if not last:
                    self._swap(block, n, found)
                self._arguments(node, found)
                self._arms(node, found)
            ends = [self._block(*inner, bound | _targets(node), found) for inner in _blocks(node, follows)]
            if isinstance(node, _JUMPS):
                return None
            bound |= _bound_after(node, ends)
        return bound

    def _delete(self, block: list[ast.stmt], n: int, follows: _Follows, bound: set[str], found: list[Change]) -> None:
        node = block[n]
        match node:
            case ast.Return():
                kind, wanted = "return", follows.function
            case ast.Continue():
                kind, wanted = "return", follows.loop
            case ast.Break():
                kind, wanted = "return", True
            case ast.Expr():
                kind, wanted = "statement", isinstance(node.value, ast.Call)
            case ast.Assign() | ast.AnnAssign() if node.value is not None:
                fresh = self._node.name == "__init__" and _of_self(node)
                kind, wanted = "statement", _targets(node) <= bound and not fresh
            case ast.AugAssign() | ast.Delete():
                kind, wanted = "statement", True
            case _:
                return

        def make() -> None:
            block[n] = ast.copy_location(ast.Pass(), node)

        if wanted:
            self._note(found, node, kind, f"deleted: {ast.unparse(node)}", make)

    def _swap(self, block: list[ast.stmt], n: int, found: list[Change]) -> None:
        first, second = block[n], block[n + 1]
        what = _guards(first, second) or _effects(first, second)

        def make() -> None:
            block[n], block[n + 1] = block[n + 1], block[n]

        if what:
            self._note(found, first, "order", f"swapped: {what}", make)

    def _arms(self, node: ast.stmt, found: list[Change]) -> None:
        """An ``if`` and the ``elif`` after it have their arms swapped, and so have neighbouring cases."""
        arms: list[ast.If | ast.match_case] = []
        if isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
            arms = [node, node.orelse[0]]
        elif isinstance(node, ast.Match):
            arms = list(node.cases)
        for one, other in pairwise(arms):
            if _same(_acting(one.body), _acting(other.body)):
                continue

            def make(one: ast.If | ast.match_case = one, other: ast.If | ast.match_case = other) -> None:
                one.body, other.body = other.body, one.body

            self._note(found, one.body[0], "arms", f"arms swapped: {_condition(one)}, {_condition(other)}", make)

    def _arguments(self, node: ast.stmt, found: list[Change]) -> None:
        for call in (part for own in _own(node) for part in ast.walk(own) if isinstance(part, ast.Call)):
            name = ast.unparse(call.func)
            if name in _SYMMETRIC:
                continue
            types = self._types_of(call)
            for n, (one, other) in enumerate(pairwise(call.args)):
                if isinstance(one, ast.Starred) or isinstance(other, ast.Starred) or _same([one], [other]):
                    continue
                if not _alike(types.get(n) or self._type(one), types.get(n + 1) or self._type(other)):
                    continue

                def make(call: ast.Call = call, n: int = n) -> None:
                    call.args[n], call.args[n + 1] = call.args[n + 1], call.args[n]

                what = f"arguments swapped: {ast.unparse(one)}, {ast.unparse(other)} of {name}"
                self._note(found, node, "arguments", what, make)
            for left, right in pairwise(call.keywords):
                if left.arg is None or right.arg is None or _same([left.value], [right.value]):
                    continue
                if not _alike(
                    types.get(left.arg) or self._type(left.value), types.get(right.arg) or self._type(right.value)
                ):
                    continue

                def make_named(left: ast.keyword = left, right: ast.keyword = right) -> None:
                    left.value, right.value = right.value, left.value

                self._note(
                    found, node, "arguments", f"arguments swapped: {left.arg}, {right.arg} of {name}", make_named
                )

    def _types_of(self, call: ast.Call) -> dict[int | str, str]:
        """The parameters of a call have these types, by place and by name, as far as the module knows the function."""
        function = self._named(call.func)
        if not callable(function):
            return {}
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # a builtin that tells nothing of itself
            return {}
        found: dict[int | str, str] = {}
        for n, parameter in enumerate(parameters):
            if isinstance(parameter.annotation, str) and parameter.annotation:
                found[parameter.name] = parameter.annotation
                if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                    found[n] = parameter.annotation
        return found

    def _named(self, node: ast.expr) -> object:
        if isinstance(node, ast.Name):
            return self._known.get(node.id)
        if isinstance(node, ast.Attribute) and (owner := self._named(node.value)) is not None:
            return getattr(owner, node.attr, None)
        return None

    def _type(self, node: ast.expr) -> str:
        """An argument that is a constant or a parameter of the function has this type; another has none."""
        if isinstance(node, ast.Constant):
            return type(node.value).__name__
        return self._types.get(node.id, "") if isinstance(node, ast.Name) else ""


def _documents(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _same(one: Sequence[ast.AST], other: Sequence[ast.AST]) -> bool:
    return [ast.dump(node) for node in one] == [ast.dump(node) for node in other]


def _acting(body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """A body has these statements that do not only tell."""
    return [node for node in body if not narrates(node)]


def _alike(one: str, other: str) -> bool:
    """A C compiler takes the one for the other: True. What has no type known may be anything."""
    one, other = one.removesuffix(" | None"), other.removesuffix(" | None")
    return not one or not other or one == other or {one, other} <= _INTEGERS


def _of_self(node: ast.Assign | ast.AnnAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(t, ast.Attribute) for target in targets for t in ast.walk(target))


def _targets(node: ast.stmt) -> set[str]:
    """A statement itself binds these names."""
    match node:
        case ast.Assign():
            places: list[ast.AST] = list(node.targets)
        case ast.AnnAssign() if node.value is not None:
            places = [node.target]
        case ast.For():
            places = [node.target]
        case ast.With():
            places = [item.optional_vars for item in node.items if item.optional_vars is not None]
        case _:
            places = []
    named = {part.id for place in places for part in ast.walk(place) if isinstance(part, ast.Name) and _stores(part)}
    walrus = {part.target.id for own in _own(node) for part in ast.walk(own) if isinstance(part, ast.NamedExpr)}
    return named | walrus


def _stores(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _own(node: ast.stmt) -> list[ast.AST]:
    """A statement has these expressions outside the blocks in it."""
    match node:
        case ast.If() | ast.While():
            return [node.test]
        case ast.For():
            return [node.iter]
        case ast.With():
            return list(node.items)
        case ast.Match():
            return [node.subject]
        case ast.FunctionDef() | ast.ClassDef() | ast.Try():
            return []
        case _:
            return [node]


def _blocks(node: ast.stmt, follows: _Follows) -> list[tuple[list[ast.stmt], _Follows]]:
    """A statement has these blocks, each with what is run after it."""
    match node:
        case ast.If():
            return [(node.body, follows), (node.orelse, follows)]
        case ast.While() | ast.For():
            return [(node.body, _Follows(True, False))]
        case ast.With():
            return [(node.body, follows)]
        case ast.Match():
            return [(case.body, follows) for case in node.cases]
        case _:
            return []


def _bound_after(node: ast.stmt, ends: Sequence[set[str] | None]) -> set[str]:
    """After ``node``, whose blocks end with the names ``ends`` bound, these are bound."""
    if isinstance(node, (ast.While, ast.For)):  # a body may not run at all
        return set()
    staying = [end for end in ends if end is not None]
    return _targets(node) | (set.intersection(*staying) if staying else set())


def _guards(first: ast.stmt, second: ast.stmt) -> str:
    """Two guards (each an ``if`` that leaves) whose order may count are named so; others are not named."""
    if not (isinstance(first, ast.If) and isinstance(second, ast.If)) or first.orelse or second.orelse:
        return ""
    if not (isinstance(first.body[-1], _JUMPS) and isinstance(second.body[-1], _JUMPS)):
        return ""
    if _same(_acting(first.body), _acting(second.body)) or _exclude(first.test, second.test):
        return ""
    return f"if {ast.unparse(first.test)}, if {ast.unparse(second.test)}"


def _exclude(one: ast.expr, other: ast.expr) -> bool:
    """Both ask what one thing is, so that at most one is true: True."""
    return (
        isinstance(one, ast.Compare)
        and isinstance(other, ast.Compare)
        and _same([one.left], [other.left])
        and all(isinstance(op, (ast.Eq, ast.In, ast.Is)) for op in (*one.ops, *other.ops))
    )


def _effects(first: ast.stmt, second: ast.stmt) -> str:
    """Two neighbours that act, one of them a call at least, are named so; others are not named."""
    both = (first, second)
    if not all(map(_acts, both)) or _same([first], [second]) or not any(isinstance(node, ast.Expr) for node in both):
        return ""
    return f"{ast.unparse(first)}; {ast.unparse(second)}"


def _acts(node: ast.stmt) -> bool:
    """A statement does something that another could depend on: True."""
    match node:
        case ast.Expr():
            return isinstance(node.value, ast.Call) and not narrates(node) and not _tallies(node.value)
        case ast.Assign():
            return all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets)
        case ast.AugAssign():
            return isinstance(node.target, (ast.Attribute, ast.Subscript))
        case ast.Delete():
            return True
        case _:
            return False


def _tallies(call: ast.Call) -> bool:
    """``call`` only counts, or notes a WARN: True. Where among others that happens, nobody sees."""
    function = call.func
    if not isinstance(function, ast.Attribute):
        return False
    into = function.value
    return function.attr == "count" or (
        function.attr == "append" and isinstance(into, ast.Attribute) and into.attr == "warns"
    )


def _condition(arm: ast.If | ast.match_case) -> str:
    return ast.unparse(arm.test if isinstance(arm, ast.If) else arm.pattern)
