"""The modules of a level without one of its patches.

What does not compile without the patch is left out with it: the compiler's complaints lead there. They are built one
after the other in the kernel's one working tree, as levels are; make takes as many processors as ``kernel.jobs`` says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.build import modules
from harness.build.cache import Cache, sha256
from harness.build.kernel import BaseKernel
from harness.build.modules import Modules
from harness.errors import CompileError
from harness.jsonable import Json
from harness.series import How, Patch, Series, Variant, leaving_out, states

KIND: Final = "without-patch"
RECIPE: Final = 1  # counts changes of how it is found out what goes with a patch
_ERROR = re.compile(r"^(?P<path>[^\s:]+):(?P<line>\d+):\d+: (?:fatal )?error: ", re.M)
_TEXT = re.compile(r": (?:fatal )?error: (.*)$", re.M)
_WORD = re.compile(r"\w+")
_MISSING = re.compile(
    r"error: implicit declaration of function .(\w+).|error: .(\w+). undeclared|has no member named .(\w+).|"
    r"undefined reference to .(\w+).|\"(\w+)\" \[.*\] undefined!"
)


@dataclass(frozen=True, slots=True)
class Without:
    """This is a level without ``patch``: what else stays out, how and why, and its modules (None: ``why`` there are
    none).
    """

    level: int
    patch: int
    left_out: tuple[int, ...]
    how: How
    why: str
    modules: Modules | None


def build(cache: Cache, base: BaseKernel, series: Series, level: int, patch: int) -> Without:
    """The function gives the modules of ``level`` without ``patch``, from the cache where they were built before.

    Raises BuildError when the machine cannot build them.
    """

    def find(folder: Path) -> None:
        found = _find(cache, base, series, level, patch)
        (folder / "found.json").write_text(json.dumps(found) + "\n", encoding="utf-8")

    key = {
        "base": base.key,
        "patches": [sha256(one.path) for one in series.patches[:level]],
        "patch": patch,
        "recipe": RECIPE,
    }
    folder = cache.entry(KIND, key, find, title=_title(level, [patch]))
    found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    left_out, how = tuple(found["left_out"]), How(found["how"])
    made = None
    if found["compiles"]:
        variant = leaving_out.leave_out(series, base.pristine, level, left_out)
        made = modules.of_state(cache, base, variant.state, name=_title(level, left_out))
    return Without(level, patch, left_out, how, found["why"], made)


def _title(level: int, patches: Iterable[int]) -> str:
    return f"level {level} without patch {', '.join(map(str, patches))}"


def _find(cache: Cache, base: BaseKernel, series: Series, level: int, patch: int) -> dict[str, Json]:
    """What has to stay out with ``patch`` so that the rest applies and compiles, as JSON."""
    gone = {patch}
    why: list[str] = []
    while True:
        variant = leaving_out.leave_out(series, base.pristine, level, gone)
        if refused := set(variant.left_out) - gone:
            why.append(f"patch {_listed(refused)} does not apply without patch {_listed(gone)}")
            gone |= refused
            if more := _with_them(cache, base, series, level, refused) - gone:
                why.append(f"patch {_listed(more)} does not go without patch {_listed(refused)}")
                gone |= more
                continue
        found: dict[str, Json] = {"left_out": sorted(gone), "how": variant.how.value, "compiles": True}
        try:
            modules.of_state(cache, base, variant.state, name=_title(level, sorted(gone)))
        except CompileError as error:
            more = _dependent(series, base, variant, str(error))
            if not more:
                first = next((row for row in str(error).splitlines()[1:]), str(error))
                return found | {"compiles": False, "why": f"it does not compile: {first.rpartition('/')[2]}"}
            why.append(f"patch {_listed(more)} does not compile without patch {_listed(gone)}")
            gone |= more | _with_them(cache, base, series, level, more)
            continue
        return found | {"why": "; ".join(why)}


def _with_them(cache: Cache, base: BaseKernel, series: Series, level: int, patches: Iterable[int]) -> set[int]:
    """What each of these later patches takes with it by itself."""
    return {n for patch in patches for n in build(cache, base, series, level, patch).left_out}


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _dependent(series: Series, base: BaseKernel, variant: Variant, text: str) -> set[int]:
    """The patches behind what is left out that the compiler's complaints lead to and that are not left out yet.

    Those that wrote the lines at which it stops, or lines that mention what it misses; else the last with a hunk that
    mentions a name in its words.
    """
    lines = [(path, int(m["line"])) for m in _ERROR.finditer(text) if (path := _inside(series, m["path"]))]
    if not variant.applied:  # taken back: who wrote a line is known of the whole level only
        variant, lines = replace(variant, applied=tuple(states(series, base.pristine, variant.level))), []
    missing = {name for m in _MISSING.finditer(text) for name in m.groups() if name}
    for path, data in variant.applied[-1].state.items():
        for number, row in enumerate((data or b"").decode("utf-8", "replace").splitlines(), 1):
            if missing & set(_WORD.findall(row)):
                lines.append((path, number))
    behind = set(range(variant.left_out[0] + 1, variant.level + 1)) - set(variant.left_out)
    names = {word for m in _TEXT.finditer(text) for word in _WORD.findall(m[1]) if "_" in word or word.isupper()}
    if found := leaving_out.writers(series, base.pristine, variant, lines) & behind:
        return found
    return set(sorted(n for n in behind if names & _mentioned(series.patches[n - 1]))[-1:])


def _mentioned(patch: Patch) -> set[str]:
    """The words of a patch's hunks."""
    return {
        word for file in patch.mail.files for hunk in file.hunks for row in hunk.rows for word in _WORD.findall(row)
    }


def _inside(series: Series, path: str) -> str:
    """The file of the series that the compiler names by ``path``; empty where it is none of them."""
    return next((known for known in series.reached if path == known or path.endswith(f"/{known}")), "")
