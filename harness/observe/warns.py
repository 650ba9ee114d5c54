"""WARNs of the host's kernel, and which of them a vector made."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from harness.hosts import WARNING

_WARN: Final = re.compile(rf"^\[\s*(?P<time>\d+\.\d+)\] {WARNING}", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Warned:
    """A WARN of the host's kernel: seconds of its clock, the file from arch/x86/kvm on, the function it was in.

    A kernel without CONFIG_DEBUG_BUGVERBOSE names no file (it is empty then), and the function is the one that the
    WARN's own was inlined into.
    """

    time: float
    file: str
    function: str

    def __str__(self) -> str:
        return f"{self.file} {self.function}".lstrip()


def warned(dmesg: str) -> list[Warned]:
    """The function gives the WARNs in the kernel's log."""
    return [
        Warned(float(m["time"]), (m["file"] or "").removeprefix("arch/x86/kvm/"), m["function"])
        for m in _WARN.finditer(dmesg)
    ]


def of_vector(found: Iterable[Warned], begin: float, end: float) -> tuple[str, ...]:
    """The function gives those from ``begin`` (a vector's mark) to ``end`` (the next one's), both on the clock of trace
    and log.
    """
    return tuple(str(one) for one in found if begin <= one.time < end)


def is_among(warn: str, seen: Iterable[str]) -> bool:
    """The method says whether one of ``seen`` may be ``warn``, as the mirror names it: where it has a file, by that."""
    return any(" " not in one or one.split()[0] == warn.split()[0] for one in seen)


def same_warns(due: Collection[str], possible: Collection[str], seen: Collection[str]) -> bool:
    """KVM warned of all that is ``due`` and of nothing but what is ``possible``, by the mirror (rule warns): it is then
    True.
    """
    if any(" " not in one for one in seen):
        return len(due) <= len(seen) <= len(possible)
    files = [{one.split()[0] for one in warns} for warns in (due, seen, possible)]
    return files[0] <= files[1] <= files[2]
