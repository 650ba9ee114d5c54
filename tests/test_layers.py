"""The house: one direction of imports, doors that are used, a design document that says the same."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import layers

ROOT = layers.ROOT
PACKAGES = sorted(
    ".".join(p.parent.relative_to(ROOT).parts)
    for p in (ROOT / "harness").rglob("__init__.py")
    if p.parent.name not in ("harness", "oracle", "cli")
)


def package_of(module: str) -> str:
    """The package behind whose door a module lies; empty for what has none (errors, protocol, the command line)."""
    return max((p for p in PACKAGES if module == p or module.startswith(f"{p}.")), key=len, default="")


def imports() -> Iterator[tuple[Path, str, str, str]]:
    """Every import of the harness from a package of its own: file, the importer's package, module, name."""
    for file in sorted((ROOT / "harness").rglob("*.py")):
        here = package_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("harness"):
                yield from ((file, here, node.module, alias.name) for alias in node.names)
            elif isinstance(node, ast.Import):
                yield from ((file, here, alias.name, "") for alias in node.names if alias.name.startswith("harness"))


def doors() -> dict[str, set[str]]:
    """What each package lets others have: its ``__all__``."""
    found = {}
    for package in PACKAGES:
        tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text(encoding="utf-8"))
        (names,) = (
            ast.literal_eval(n.value)
            for n in tree.body
            if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"
        )
        found[package] = set(names)
    return found


def test_imports_have_one_direction() -> None:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_package_is_entered_by_its_door() -> None:
    open_to = doors()
    past = [
        f"{file.relative_to(ROOT)}: from {module} import {name}"
        for file, here, module, name in imports()
        if (there := package_of(module)) not in ("", here) and (module != there or name not in open_to[there])
    ]
    assert not past, "not by the door, or not in its __all__:\n" + "\n".join(past)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_door_gives_what_somebody_takes(package: str) -> None:
    taken = {name for _, here, module, name in imports() if module == package != here}
    assert doors()[package] == taken


def test_the_design_shows_the_layers() -> None:
    text = layers.DESIGN.read_text(encoding="utf-8")
    assert layers.listed() in text, "docs/design.md is behind pyproject.toml: run python -m tests.layers"


def test_no_two_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for file in (*(ROOT / "harness").rglob("*.py"), *(ROOT / "kvmodel").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(file.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
