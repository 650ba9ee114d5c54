"""The docstrings of harness by their form: a whole sentence first, and the errors of ours that a function raises.

What no test can tell, whether a sentence is true and plain, is left to who reads it.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import harness
from harness.errors import KvmirrorError

ROOT: Final = Path(__file__).resolve().parents[1]

# Finite verbs of these docstrings. A form that is a noun as well (calls, runs, names) is none of them: it would make a
# sentence of "the runs of a journal". A true sentence that fails needs its verb here, or a plainer one.
VERBS: Final = """
is are was were has have had does do did can cannot may must will would should could adds allows appears applies apply
asks became becomes become began begin begins belongs boots bring brings came carries chooses closes collects come comes
compiles contains decides defines departs depend depends differ differs digests divides draws ended failed fails find
finds fits follow follows forbids gave get gets give gives go goes got guards happened happens hold holds joins keep
keeps kept know knows lacks lay leave leaves let lets lie lies make makes mean means needs opens parses passes
prepares prints put puts raises ran reach reaches read reads reports returned returns said say says see sees serves
shows sorts splits stand stands stay stays stood stopped stops survives take takes teaches tell tells told took tries
turns uses waits wants went write writes wrote meet meets
"""
WORDS: Final = frozenset(VERBS.split())
# Forms of both kinds count behind what acts.
ACTING: Final = re.compile(
    r"\b(?:it|KVM|QEMU|L1|L2|function|command|program|class|method|loop|thread|probe|host|mirror|kernel|patch|level|mail"
    r"|digest|block|table|test|check|rule|name|user|mutant)"
    r" (?:answers|asks|builds|calls|changes|copies|counts|ends|lists|loads|matches|names|notes|offers|runs|sets|starts"
    r"|states)\b"
)
SUBORDINATE: Final = re.compile(
    r"\b(?:that|which|who|whom|whose|where|when|while|if|unless|whether|what|whatever|how|why|until|because|although"
    r"|since|wherever|whichever|whoever|as|than)\b([^,;:]*)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Documented:
    """A public class or function of harness, with the errors that its own body raises."""

    place: str
    name: str
    text: str
    raised: frozenset[str]

    def __str__(self) -> str:
        return f"{self.place} {self.name}"


def verbs(text: str) -> int:
    return sum(word in WORDS for word in re.findall(r"[a-z]+", text)) + len(ACTING.findall(text))


def is_sentence(first: str) -> bool:
    """Whether a verb stands outside the subordinate clauses, or one of these holds the main clause's verb as well."""
    plain = re.sub(r"``[^`]*``|\([^)]*\)", "X", first)
    plain = re.sub(r"\bto [a-z]+", "", plain)
    if verbs(SUBORDINATE.sub("", plain)):
        return True
    return any(verbs(SUBORDINATE.sub("", clause[1])) > 1 for clause in SUBORDINATE.finditer(plain))


def first_sentence(text: str) -> str:
    paragraph = " ".join(text.split("\n\n")[0].split())
    end = re.search(r"\.(?= [A-Z`(])", paragraph)
    return paragraph[: end.end()] if end else paragraph


def our_errors() -> dict[str, set[str]]:
    """Each error class of ours with the names under which a docstring may announce it: its own and its bases'."""
    for module in pkgutil.walk_packages(harness.__path__, "harness."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    ours, waiting = {}, [KvmirrorError]
    while waiting:
        one = waiting.pop()
        ours[one.__name__] = {base.__name__ for base in one.__mro__ if issubclass(base, KvmirrorError)}
        waiting += one.__subclasses__()
    return ours


def raised(function: ast.AST, ours: dict[str, set[str]]) -> Iterator[str]:
    """What the body itself raises by a class's name; not what a ``try`` of its own takes, nor a function inside."""
    for node in ast.iter_child_nodes(function):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(node, ast.Try) and node.handlers:
            for part in (*node.handlers, *node.orelse, *node.finalbody):
                yield from raised(ast.Module([part], []), ours)
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).split(".")[-1]
            if name in ours:
                yield name
        yield from raised(node, ours)


def raised_by_making(made: ast.ClassDef, ours: dict[str, set[str]]) -> Iterator[str]:
    """What making an object of the class raises."""
    for function in made.body:
        if isinstance(function, ast.FunctionDef) and function.name in ("__init__", "__post_init__"):
            yield from raised(function, ours)


def documented() -> list[Documented]:
    ours = our_errors()
    found: list[Documented] = []

    def below(place: str, node: ast.Module | ast.ClassDef, above: str) -> None:
        for one in node.body:
            if not isinstance(one, ast.FunctionDef | ast.ClassDef) or one.name.startswith("_"):
                continue
            if any(ast.unparse(decorator).endswith(".setter") for decorator in one.decorator_list):
                continue
            if [ast.unparse(line) for line in one.body] == ["..."]:  # of a protocol, which says it for them
                continue
            name, text = above + one.name, ast.get_docstring(one) or ""
            errors = raised(one, ours) if isinstance(one, ast.FunctionDef) else raised_by_making(one, ours)
            found.append(Documented(place, name, text, frozenset(errors)))
            if isinstance(one, ast.ClassDef):
                below(place, one, f"{name}.")

    for path in sorted((ROOT / "harness").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        below(str(path.relative_to(ROOT)), tree, "")
    return found


ALL: Final = documented()


@pytest.mark.parametrize(
    "text", ["The runs of a journal.", "What became of it.", "Whether it ran.", "Run it.", "None."]
)
def test_a_fragment_is_told(text: str) -> None:
    assert not is_sentence(first_sentence(text))


@pytest.mark.parametrize(
    "text",
    [
        "It ran. More.",
        "The vectors that L1 and L2 meet are counted.",
        "A rule says what ``x`` is, where it is known.",
        "The function calls what the user gave.",
        "This is one (or two) of them: a b. Raises InputError.",
    ],
)
def test_a_sentence_is_told(text: str) -> None:
    assert is_sentence(first_sentence(text))


def test_first_sentence_is_whole() -> None:
    wrong = [f"{one}: {first_sentence(one.text)!r}" for one in ALL if not first_sentence(one.text).endswith(".")]
    assert not wrong
    wrong = [f"{one}: {first_sentence(one.text)!r}" for one in ALL if not is_sentence(first_sentence(one.text))]
    assert not wrong


def test_errors_that_are_raised_are_named() -> None:
    """A command's own errors are its caller's contract: the command line tells every one of ours."""
    ours = our_errors()
    wrong = [
        f"{one} raises {error}"
        for one in ALL
        for error in sorted(one.raised)
        if not any(re.search(rf"\b{name}\b", one.text) for name in ours[error])
        and not (one.place.startswith("harness/cli/") and one.name.startswith("run"))
    ]
    assert not wrong


def test_errors_are_looked_for() -> None:
    """The reading of bodies finds what it is for: most who name an error of ours in a ``raise`` are found."""
    assert sum(bool(one.raised) for one in ALL) > 80
