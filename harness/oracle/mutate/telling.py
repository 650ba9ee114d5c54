"""Some statements of the mirror only tell what it does. They are no semantics, and mutants leave them alone."""

from __future__ import annotations

import ast
from typing import Final

_TELLING: Final = frozenset({"narrate", "trace"})


def narrates(node: ast.AST) -> bool:
    """``node`` is ``narrate(...)`` or ``trace(...)`` as a statement: True."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id in _TELLING
    )


def tells(node: ast.If) -> bool:
    """``node`` decides nothing but what is told: True."""
    return all(map(narrates, (*node.body, *node.orelse)))
