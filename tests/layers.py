"""The layers as pyproject.toml states them, and their list in docs/design.md: ``python -m tests.layers`` writes it."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
DESIGN: Final = ROOT / "docs" / "design.md"
BEGIN: Final = "<!-- the layers: python -m tests.layers writes this list -->\n"
END: Final = "<!-- end of the layers -->\n"


def layers(contract: str) -> list[list[str]]:
    """The layers of a contract of pyproject.toml from the ground up, each with the packages that share it."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (found,) = (c["layers"] for c in tool["contracts"] if c["id"] == contract)
    return [row.split(" | ") for row in reversed(found)]


def about(package: Path) -> str:
    """The first sentence of a package's or module's docstring, in one line."""
    file = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return re.sub(r"\s+", " ", text.split("\n\n")[0])


def listed() -> str:
    """The list: a line a package, from the ground up."""
    out = []
    for contract, folder in (("harness", ROOT / "harness"), ("oracle", ROOT / "harness" / "oracle")):
        rows = [(name, about(folder / name)) for row in layers(contract) for name in row]
        out += [f"`{folder.relative_to(ROOT)}`, from the ground up:\n", "| part | what it is |", "| --- | --- |"]
        out += [f"| `{name}` | {text} |" for name, text in rows] + [""]
    return "\n".join(out)


def main() -> None:
    """Write the list into docs/design.md."""
    text = DESIGN.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    DESIGN.write_text(head + BEGIN + "\n" + listed() + "\n" + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
