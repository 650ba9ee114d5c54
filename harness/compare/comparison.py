"""A comparison of two runs: everything that a format lays out, in sections of entries of one form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict

from harness.compare import answers, fates, msrs, reading
from harness.compare.answers import AnswerGroup, Meeting, Sort
from harness.compare.fates import Fate, Lot
from harness.compare.msrs import Register
from harness.compare.pairing import Pair, cell_text, pairs
from harness.compare.reading import SIDES, Alone, Joint, RunSide, SideSaid, Twin
from harness.errors import InputError
from harness.findings import Finding
from harness.jsonable import Json
from harness.report import facts
from kvmodel.question.ids import short

SCHEMA: Final = "kvmirror-compare-1"


@dataclass(frozen=True, slots=True)
class Count:
    """The count is of the answers of one pair of cells, or of all."""

    pair: Pair | None
    both: int  # questions that both were asked
    sorts: Counter[Sort]
    only: tuple[int, int]  # questions that A alone was asked, and B alone
    left_out: tuple[int, int]  # what rules left out of A's cell, and of B's

    @property
    def differ(self) -> int:
        """This many answers are not alike."""
        return self.sorts[Sort.DEPARTS] + self.sorts[Sort.ALLOWED] + self.sorts[Sort.UNDECIDED]

    @property
    def plain(self) -> bool:
        """The pair has nothing to show: True."""
        told = self.sorts[Sort.ALIKE] + self.sorts[Sort.SILENT]
        return self.both == told and self.only == (0, 0)


@dataclass(frozen=True, slots=True)
class ComparedAnswer:
    """An answer is laid out as what was seen, and what the manual says of it."""

    seen: str
    manual: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry is one group, whatever it is of: a title, how many, where, the smallest question with both answers."""

    title: str
    count: str
    where: str
    facts: tuple[str, ...] = ()
    vector: str = ""
    at: str = ""  # the pair of cells in which the question has these answers
    before: ComparedAnswer | None = None
    after: ComparedAnswer | None = None
    data: tuple[tuple[str, Json], ...] = ()  # what JSON has beside these
    again: bool = False  # its questions are all shown by findings of other sections

    @property
    def id(self) -> str:
        """This is the question's id in short, empty where there is none."""
        return self.vector and short(self.vector)

    @property
    def sides(self) -> list[tuple[str, ComparedAnswer]]:
        """The function gives the answers with whose they are; there is one where both are the same."""
        both = [(letter, x) for letter, x in zip(SIDES, (self.before, self.after), strict=True) if x is not None]
        return [("A, B", both[0][1])] if len(both) == 2 and self.before == self.after else both


@dataclass(frozen=True, slots=True)
class Section:
    """A section has entries of one sort. ``differs``: whether an entry here makes the two runs unequal."""

    key: str
    title: str
    about: str
    entries: tuple[Entry, ...]
    differs: bool = True


@dataclass(frozen=True)
class Comparison:
    """The comparison has two runs beside one another."""

    a: str
    b: str
    names: tuple[str, str]
    journals: tuple[str, str]
    pairs: tuple[Pair, ...]
    counts: tuple[Count, ...]  # a pair each
    total: Count
    sections: tuple[Section, ...]  # those with an entry

    @property
    def equal(self) -> bool:
        """Whether all that both were asked was answered alike, and means the same."""
        return not any(section.differs for section in self.sections)

    @property
    def chosen(self) -> str:
        """The text says which levels and parameter values were compared."""
        return where(self.pairs)

    @property
    def verdict(self) -> str:
        """The sentence tells the comparison's result."""
        total = self.total
        words = [f"{total.both:,} questions asked of both"]
        fate = {s.key: len(s.entries) for s in self.sections}
        if told := [f"{fate[f.value]} {_FATES[f]}" for f in Fate if f.value in fate]:
            words.append(f"findings: {', '.join(told)}")
        else:
            words.append("no finding on either side")
        words.append(f"{total.differ:,} answers differ" if total.differ else "no answer differs")
        if within := total.sorts[Sort.ALLOWED]:
            words.append(f"{within:,} of them within what the manual allows")
        if verdicts := total.sorts[Sort.VERDICT]:
            words.append(f"{verdicts:,} equal answers with another verdict")
        if blocked := total.sorts[Sort.BLOCKED]:
            words.append(f"{blocked:,} blocked on one side only")
        if silent := total.sorts[Sort.SILENT]:
            words.append(f"{silent:,} blocked on both")
        for letter, count in zip(SIDES, total.only, strict=True):
            if count:
                words.append(f"{count:,} asked in {letter} only")
        return "; ".join(words)


_FATES: Final = {Fate.UNKNOWN: "not comparable"} | {f: f.value for f in Fate if f is not Fate.UNKNOWN}


def gather(a: RunSide, b: RunSide) -> Comparison:
    """The function makes the comparison of two open runs.

    Raises InputError when they have nothing in common.
    """
    chosen = pairs(a.name, b.name, a.cells, b.cells)
    joint = reading.joined(a, b, chosen)
    if not joint.twins:
        raise InputError(
            f"{a.name} and {b.name} have no question in common at {where(chosen)}: A alone was asked"
            f" {_only(joint.alone, 'A'):,}, B alone {_only(joint.alone, 'B'):,}; compare runs of the same --vectors"
        )
    found = fates.lots(a, b, chosen, joint.twins)
    grouped = answers.groups(joint.twins, chosen)
    sections = [
        *_fate_sections(found),
        *_answer_sections(grouped, found),
        _section("msrs", [_register(r) for r in msrs.registers(a, b, chosen)]),
        _section("alone", _alone(joint.alone, (a, b), chosen), differs=False),
    ]
    counts = [_count(pair, joint, (a, b)) for pair in chosen]
    return Comparison(
        a.title,
        b.title,
        (a.name.short, b.name.short),
        (str(a.source), str(b.source)),
        tuple(chosen),
        tuple(counts),
        _sum(counts),
        tuple(s for s in sections if s.entries),
    )


TITLES: Final = {
    "new": ("Findings new in B", "A answered some of these questions, and does not show it"),
    "gone": ("Findings of A that are gone in B", "B answered some of these questions, and does not show it"),
    "stayed": ("Findings in both", ""),
    "unknown": (
        "Findings of one side alone of which the other side says nothing",
        "None of their questions was asked, or ran, there: neither gone nor new",
    ),
    "departs": ("Answers that differ, where one side departs from the manual or both do", ""),
    "allowed": ("Answers that differ within what the manual allows", ""),
    "undecided": ("Answers that differ where the manual does not decide", ""),
    "verdict": (
        "Equal answers that the manual takes otherwise",
        "Each side is judged by its own virtual CPU: what that offers L1 decides what the manual allows",
    ),
    "blocked": ("Blocked on one side only", "They never ran there: whether behaviour differs is not known"),
    "msrs": ("The virtual CPU's capability MSRs, as L1 read them", ""),
    "alone": ("Asked on one side only", "Not compared"),
}


def _section(key: str, entries: Iterable[Entry], *, differs: bool = True) -> Section:
    return Section(key, *TITLES[key], tuple(entries), differs)


def _fate_sections(found: Sequence[Lot]) -> list[Section]:
    return [
        _section(fate.value, [_lot(lot) for lot in found if lot.fate is fate], differs=fate in (Fate.NEW, Fate.GONE))
        for fate in Fate
    ]


def _answer_sections(grouped: Sequence[AnswerGroup], found: Sequence[Lot]) -> list[Section]:
    names = _names(found)
    told = {asked for lot in found if lot.fate in (Fate.NEW, Fate.GONE) for asked in lot.shown}
    return [
        _section(sort.value, [_group(g, names, told) for g in grouped if g.sort is sort])
        for sort in Sort
        if sort.value in TITLES
    ]


def _names(found: Iterable[Lot]) -> dict[fates.Asked, list[str]]:
    """The findings that a question shows, each with its side."""
    names: dict[fates.Asked, list[str]] = {}
    for lot in found:
        for letter, shown, side in (("A", lot.in_a, lot.before), ("B", lot.in_b, lot.after)):
            for finding in side:
                meets = {(d.cell, d.vector.id) for d in finding.departures}
                for asked in shown:
                    pair, vector = asked
                    if ((pair.before if letter == "A" else pair.after), vector) in meets:
                        names.setdefault(asked, []).append(f"{letter}'s {finding.name}")
    return names


def where(found: Iterable[Pair]) -> str:
    """The text gives pairs of cells in words: levels alone where both sides have the same."""
    chosen = list(dict.fromkeys(found))
    same = facts.cell_texts(p.before for p in chosen if p.same)
    text = f"{'level' if len(chosen) == 1 else 'levels'} {'; '.join(same)}" if same else ""
    return ", ".join([*([text] if text else []), *(str(p) for p in chosen if not p.same)])


def _answered(said: SideSaid | None) -> ComparedAnswer:
    if said is None:
        return ComparedAnswer("not asked", "")
    return ComparedAnswer(str(said.seen), said.manual if said.heard else "")


class _Example(TypedDict):
    """These fields of an entry are of its smallest question."""

    vector: str
    at: str
    before: ComparedAnswer
    after: ComparedAnswer


def _example(meeting: Meeting) -> _Example:
    return {
        "vector": meeting.vector.id,
        "at": str(meeting.pair),
        "before": _answered(meeting.before),
        "after": _answered(meeting.after),
    }


def _lot(lot: Lot) -> Entry:
    lines = _whence(lot)
    only_a, only_b = lot.only
    if lot.before and lot.after and (only_a or only_b):
        lines.append(f"of the questions both answered, {only_a:,} show it in A alone and {only_b:,} in B alone")
    if lot.fate is not Fate.UNKNOWN and lot.unanswered:
        lines.append(f"{lot.unanswered:,} more were not asked, or never ran, on the other side")
    return Entry(
        lot.title,
        many(len(lot.vectors), "vector"),
        where(lot.pairs),
        tuple(lines),
        **_example(lot.smallest),
        data=(
            ("vectors", len(lot.vectors)),
            ("a", [_finding(f) for f in lot.before]),
            ("b", [_finding(f) for f in lot.after]),
            ("only_a", only_a),
            ("only_b", only_b),
            ("unanswered", lot.unanswered),
        ),
    )


def _whence(lot: Lot) -> list[str]:
    """The findings by their names, with what is behind them; one line where it is the same."""
    names: dict[str, list[str]] = {}
    for letter, side in zip(SIDES, (lot.before, lot.after), strict=True):
        for finding in side:
            text = f"{many(len(finding.vectors), 'vector')}; {finding.origin}"
            names.setdefault(text, []).append(f"{letter}'s {finding.name}")
    return [f"{', '.join(who)}: {text}" for text, who in names.items()]


def _finding(finding: Finding) -> dict[str, Json]:
    return {
        "name": finding.name,
        "cause": finding.cause,
        "title": finding.title,
        "origin": str(finding.origin),
        "vectors": len(finding.vectors),
        "cells": [list(cell) for cell in sorted(finding.cells)],
    }


def _group(group: AnswerGroup, names: dict[fates.Asked, list[str]], told_before: set[fates.Asked]) -> Entry:
    met = Counter(name for m in group.members for name in names.get((m.pair, m.vector.id), ()))
    told = ", ".join(f"{name} ({count:,})" for name, count in met.most_common())
    return Entry(
        group.title,
        _counted(len(group.vectors), len(group.members)),
        where(group.pairs),
        (f"departs as {told}",) if told else (),
        **_example(group.smallest),
        data=(("vectors", len(group.vectors)), ("answers", len(group.members)), ("findings", dict(met))),
        again=all((m.pair, m.vector.id) in told_before for m in group.members),
    )


def many(count: int, noun: str) -> str:
    """The text is like ``1 vector``, ``2,000 vectors``."""
    return facts.plural(count, noun).replace(str(count), f"{count:,}", 1)


def _counted(vectors: int, answers_: int) -> str:
    told = many(vectors, "vector")
    return told if vectors == answers_ else f"{told}, {answers_:,} answers"


def _register(register: Register) -> Entry:
    return Entry(
        register.title,
        many(len(register.machines), "machine"),
        where(register.pairs),
        (f"machines: {', '.join(register.machines)}",),
        before=ComparedAnswer(f"{register.before:#018x}", ""),
        after=ComparedAnswer(f"{register.after:#018x}", ""),
        data=(("msr", register.number), ("machines", list(register.machines))),
    )


def _alone(found: Sequence[Alone], sides: tuple[RunSide, RunSide], chosen: Sequence[Pair]) -> list[Entry]:
    """An entry a side: what it alone was asked, by how the ids begin."""
    made = []
    for side, other in (sides, sides[::-1]):
        here = [one for one in found if one.side == side.letter]
        parts: Counter[str] = Counter()
        for one in here:
            parts[one.part] += one.vectors
        at = {one.pair for one in here}
        left_out = sum(other.left_out(p.before if other.letter == "A" else p.after) for p in at)
        if parts:
            text = ", ".join(f"{part} {count:,}" for part, count in parts.most_common())
            ruled = (f"rules left {many(left_out, 'vector')} out of {other.letter} there",) if left_out else ()
            made.append(
                Entry(
                    f"asked in {side.letter} only: {text}",
                    many(parts.total(), "question"),
                    where(p for p in chosen if p in at),
                    ruled,
                    data=(("side", side.letter), ("questions", parts.total()), ("parts", dict(parts))),
                )
            )
    return made


def _only(found: Iterable[Alone], side: str) -> int:
    return sum(one.vectors for one in found if one.side == side)


def _count(pair: Pair, joint: Joint, sides: tuple[RunSide, RunSide]) -> Count:
    here: list[Twin] = [t for t in joint.twins if t.pair == pair]
    sorts: Counter[Sort] = Counter()
    for twin in here:
        sorts[answers.sort_of(twin.before, twin.after)] += len(twin.names)
    alone = [one for one in joint.alone if one.pair == pair]
    a, b = sides
    return Count(
        pair,
        sum(sorts.values()),
        sorts,
        (_only(alone, "A"), _only(alone, "B")),
        (a.left_out(pair.before), b.left_out(pair.after)),
    )


def _sum(counts: Sequence[Count]) -> Count:
    sorts: Counter[Sort] = Counter()
    for one in counts:
        sorts.update(one.sorts)
    only, left_out = (
        (sum(x[0] for x in found), sum(x[1] for x in found))
        for found in ([c.only for c in counts], [c.left_out for c in counts])
    )
    return Count(None, sum(c.both for c in counts), sorts, only, left_out)


COLUMNS: Final = (
    "compared", "both asked", "alike", "departs", "allowed", "undecided", "verdict", "blocked", "both blocked",
    "only A", "only B",
)  # fmt: skip


def row(count: Count) -> list[str]:
    """The row has a pair of cells' counts, a text a column of ``COLUMNS``."""
    sorts = (
        Sort.ALIKE, Sort.DEPARTS, Sort.ALLOWED, Sort.UNDECIDED, Sort.VERDICT, Sort.BLOCKED, Sort.SILENT,
    )  # fmt: skip
    head = "in all" if count.pair is None else str(count.pair)
    return [head, *(f"{n:,}" for n in (count.both, *(count.sorts[s] for s in sorts), *count.only))]


def table(comparison: Comparison) -> list[list[str]]:
    """The table has the counts, a row a pair of cells that has anything to show, and their sum where it is of
    several.
    """
    rows = [row(count) for count in comparison.counts if not count.plain]
    return [list(COLUMNS), *rows, *([row(comparison.total)] if len(comparison.counts) > 1 or not rows else [])]


def as_json(comparison: Comparison) -> dict[str, Json]:
    """The function gives the object that ``--json`` prints."""
    return {
        "schema": SCHEMA,
        "equal": comparison.equal,
        "verdict": comparison.verdict,
        "a": {"name": comparison.names[0], "title": comparison.a, "journal": comparison.journals[0]},
        "b": {"name": comparison.names[1], "title": comparison.b, "journal": comparison.journals[1]},
        "pairs": [_count_json(count) for count in comparison.counts],
        "totals": _count_json(comparison.total),
        "sections": {s.key: [_entry_json(e) for e in s.entries] for s in comparison.sections},
    }


def _count_json(count: Count) -> dict[str, Json]:
    cells = {} if count.pair is None else {"a": cell_text(count.pair.before), "b": cell_text(count.pair.after)}
    return {
        **cells,
        "both": count.both,
        **{sort.value: count.sorts[sort] for sort in Sort},
        "only_a": count.only[0],
        "only_b": count.only[1],
        "left_out_a": count.left_out[0],
        "left_out_b": count.left_out[1],
    }


def _entry_json(entry: Entry) -> dict[str, Json]:
    body: dict[str, Json] = {"title": entry.title, "where": entry.where, **dict(entry.data)}
    if entry.vector:
        body |= {"smallest": entry.vector, "at": entry.at}
    for name, answer in (("before", entry.before), ("after", entry.after)):
        if answer is not None:
            body[name] = {"seen": answer.seen, **({"manual": answer.manual} if answer.manual else {})}
    return body
