"""What the packages import is what pyproject.toml declares, no less and no more."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OWN = ("harness", "kvmodel")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def plain(name: str) -> str:
    """A distribution's name in the one form that the index knows."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    """The distributions that requirements name."""
    return {plain(re.split(r"[^\w.-]", text)[0]) for text in requirements}


def imported(*folders: str) -> dict[str, set[str]]:
    """Top-level names that come from outside, each with the files that import it."""
    found: dict[str, set[str]] = {}
    for path in (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(str(path.relative_to(ROOT)))
    return {name: files for name, files in found.items() if name not in {*sys.stdlib_module_names, *OWN, "tests"}}


def undeclared(imports: dict[str, set[str]], known: set[str]) -> dict[str, set[str]]:
    """Imports that no declared distribution provides."""
    provided = packages_distributions()
    return {name: files for name, files in imports.items() if not {plain(d) for d in provided.get(name, ())} & known}


EXTRAS = PROJECT["optional-dependencies"]


@pytest.fixture(autouse=True)
def extras() -> None:
    """What an extra brings is known only where it is installed."""
    pytest.importorskip("labgrid", reason="labgrid is not in this virtual environment: make setup brings it")


def test_every_import_is_declared() -> None:
    assert not undeclared(imported(*OWN), declared([*PROJECT["dependencies"], *EXTRAS["lab"]]))


def test_every_dependency_is_imported() -> None:
    provided = packages_distributions()
    used = {plain(d) for name in imported(*OWN) for d in provided.get(name, ())}
    assert not declared([*PROJECT["dependencies"], *EXTRAS["lab"]]) - used


def test_what_an_extra_brings_is_imported_where_it_is_used_only() -> None:
    """Without the extra every command still starts: its modules are imported inside functions."""
    for path in sorted((ROOT / "harness").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not ast.unparse(node).startswith(("import labgrid", "from labgrid")), path


def test_what_tests_import_is_declared() -> None:
    known = declared([*PROJECT["dependencies"], *EXTRAS["lab"], *EXTRAS["dev"]])
    assert not undeclared(imported("tests"), known)
