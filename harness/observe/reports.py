"""What the host's kernel says of itself: WARN, BUG, oops, lockdep, KASAN, UBSAN, lockup; and of which vector it speaks.

A report belongs to the vector that ran when it came, told by the marks of the probe in KVM's trace and the clock that
trace and log share. Line numbers and addresses are left out: what is the same report at two levels reads the same.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.hosts import WARNING, Host
from kvmodel.question.vector import Vector

MOST: Final = 2  # vectors that one report is told of in a batch
SAME: Final = 0.05  # seconds: an Oops so soon behind a BUG is that BUG's
TREE: Final = "arch/x86/kvm/"

# What a line of the log has to have so that the host sends it; RIP names the function of a BUG.
SENT: Final = (
    "WARNING: |BUG: |kernel BUG at|UBSAN: |Oops|general protection fault|INFO: task|INFO: .*stall|cut here|RIP: 0010:"
)
_STAMP: Final = re.compile(r"^\[ *(?P<time>\d+\.\d+)\](?:\[ *[TC]\d+\])? (?P<text>.*)$")
_CUT: Final = "cut here ]"
_WARN: Final = re.compile(WARNING)
_RIP: Final = re.compile(r"RIP: 0010:(?P<function>[\w.]+)\+0x")
_PLACE: Final = re.compile(r":\d+(?::\d+)?\b!?")
_FORMS: Final = (
    (re.compile(r"BUG: (?P<tool>KASAN|KFENCE|KCSAN): (?P<what>[\w-]+)(?: in (?P<where>[\w.]+))?"), "{tool}: {what}"),
    (re.compile(r"UBSAN: (?P<what>[\w-]+) in (?P<where>[^\s:]+)"), "UBSAN: {what}"),
    (re.compile(r"kernel BUG at (?P<where>[^\s:]+)"), "BUG"),
    (re.compile(r"(?:watchdog: )?BUG: (?P<what>soft lockup)"), "{what}"),
    (re.compile(r"BUG: (?P<what>[^,:]*?)(?: for address| on CPU| at (?P<where>[^\s:]+)|[,:]|$)"), "BUG: {what}"),
    (re.compile(r"WARNING: (?P<what>[a-z][\w -]*?)!?$"), "lockdep: {what}"),
    (re.compile(r"general protection fault"), "general protection fault"),
    (re.compile(r"^Oops: "), "oops"),
    (re.compile(r"INFO: task .+ blocked for more than"), "hung task"),
    (re.compile(r"INFO: (?P<what>.*stall)"), "stall"),
)
ENDING: Final = ("BUG", "oops", "general protection fault")  # begin the reports of an oops


@dataclass(frozen=True, slots=True)
class LogReport:
    """The report has seconds of the kernel's clock, what it is, and the function or file that it names."""

    time: float
    what: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.what} in {self.where}" if self.where else self.what

    @property
    def fatal(self) -> bool:
        """Whether it is of an oops: whatever was running then is gone."""
        return self.what.startswith(ENDING) and not self.what.startswith(("BUG: sleeping", "BUG: scheduling"))


def _of_line(time: float, text: str) -> LogReport | None:
    if match := _WARN.search(text):
        file = (match["file"] or "").removeprefix(TREE)
        return LogReport(time, "WARN", f"{file} {match['function']}".lstrip())
    for pattern, form in _FORMS:
        if match := pattern.search(text):
            named = match.groupdict()
            return LogReport(time, form.format(**named).strip(), (named.get("where") or "").removeprefix(TREE))
    return None


def read(log: str) -> list[LogReport]:
    """The reports in the kernel's log (lines with time stamps, as dmesg has them), each once."""
    found: list[LogReport] = []
    cut: float | None = None  # a "cut here" of which the next line tells what it is
    for line in log.splitlines():
        if not (stamped := _STAMP.match(line)):
            continue
        time, text = float(stamped["time"]), stamped["text"]
        if _CUT in text:
            cut = time
            continue
        report = _of_line(time, text)
        if report is None and (match := _RIP.search(text)) and found and found[-1].fatal and not found[-1].where:
            found[-1] = replace(found[-1], where=match["function"])
        elif report is None and cut is not None and "RIP:" not in text:
            found.append(LogReport(time, _PLACE.sub("", text).strip()))
        elif report is not None and not _again(report, found):
            found.append(report)
        cut = None
    return found


def _again(report: LogReport, found: Sequence[LogReport]) -> bool:
    """Whether ``report`` is a further line of the last one."""
    return bool(found) and report.what in ENDING and found[-1].fatal and report.time - found[-1].time < SAME


class Log:
    """The kernel's log of a host, read on from where it was read to."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._read_to = -1.0
        self.news()  # what the boot said is nobody's
        self.spoken = False  # whether there was a report since

    def news(self) -> list[LogReport]:
        """The reports since the last look."""
        text = self._host.run(f"dmesg | grep -E '{SENT}'").stdout
        found = [report for report in read(text) if report.time > self._read_to]
        if found:
            self._read_to = found[-1].time
            self.spoken = True
        return found


@dataclass(frozen=True, slots=True)
class Reported:
    """The report stands with the vector that it belongs to; None where it belongs to none."""

    vector: Vector | None
    text: str


def of_vectors(found: Iterable[LogReport], begins: Sequence[tuple[float, Vector]]) -> list[Reported]:
    """The function gives each report with the vector that ran. ``begins``: when each vector began, in order of time.

    What comes before the first is nobody's; what comes behind the last is the last's, whose L1 it may have ended.
    """
    times = [time for time, _ in begins]
    places = ((bisect_right(times, report.time) - 1, str(report)) for report in found)
    return some(Reported(begins[at][1] if at >= 0 else None, text) for at, text in places)


def some(reported: Iterable[Reported]) -> list[Reported]:
    """The function gives each report once, and of the same one of many vectors MOST, the first ones."""
    told: list[Reported] = []
    for one in reported:
        if one not in told and sum(other.text == one.text for other in told) < MOST:
            told.append(one)
    return told
