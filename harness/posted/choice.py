"""Which of many mails are the series: postings, their versions, what was posted beside them, and what is missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from harness.errors import InputError, SeriesError
from harness.posted import threads
from harness.posted.letter import Letter
from harness.posted.threads import Slip
from harness.series import Mail, harmless

FEW: Final = 6  # mails that are named in a message; the others are counted


@dataclass(frozen=True)
class Chosen:
    """The patches in order, the cover's title, what was left out or done, and what is said of the base."""

    title: str | None
    patches: tuple[Mail, ...]
    notes: tuple[str, ...]
    trailers: tuple[tuple[str, str], ...] = ()


@dataclass
class _Posting:
    """Patches that were posted together: of one version, by their numbers; ``total`` is None for one without.

    ``again``: they were sent again as they were. ``draft``: as an RFC, whose versions may be counted apart.
    """

    version: int
    total: int | None
    again: bool
    draft: bool
    thread: int
    patches: dict[int, Letter] = field(default_factory=dict)
    cover: Letter | None = None

    @property
    def missing(self) -> list[int]:
        """The numbers of the patches that are not there."""
        return [n for n in range(1, (self.total or 1) + 1) if n not in self.patches]

    @property
    def first(self) -> Letter:
        """The cover, or the first patch that is there."""
        return self.cover or self.patches[min(self.patches)]

    @property
    def date(self) -> float:
        """When it was posted, in seconds; 0 where its first mail does not say."""
        return threads.seconds(self.first.date)

    @property
    def titles(self) -> set[str]:
        """The subjects of its patches and its cover, without tags, in small letters."""
        mails = [letter.mail.subject for letter in self.patches.values() if letter.mail]
        return {title.lower() for title in [*mails, *([self.cover.tag.title] if self.cover else [])]}

    @property
    def senders(self) -> set[str]:
        """Who posted it."""
        return {letter.sender for letter in self.patches.values()}

    def told(self) -> str:
        """The posting, for messages."""
        have = f"{len(self.patches)} of {self.total or 1} patches"
        return f"{harmless(self.first.tag.title or self.first.subject, 90)!r} ({self.called}, {have})"

    @property
    def called(self) -> str:
        """Its version, and that it is an RFC where it is one."""
        return f"{'RFC, ' if self.draft else ''}version {self.version}"

    @property
    def kind(self) -> tuple[int, bool, bool]:
        """Two postings of one series that differ in it are not one posting."""
        return self.version, self.again, self.draft


def choose(letters: Sequence[Letter], version: int | None = None) -> Chosen:
    """The function chooses the series among ``letters``: its newest version, or ``version``.

    Raises SeriesError, naming mails or series, when a patch is missing or there twice, when there are two series, or
    none.
    Raises InputError when the version is not there.
    """
    notes: list[str] = []
    single = _without_copies(letters, notes)
    covers = [one for one in single if one.tag.patch and one.mail is None and (one.tag.number in (0, None))]
    patches = _patches(single, notes)
    if not patches:
        raise SeriesError(_nothing(single, notes))
    postings = _postings(patches, [c for c in covers if not c.trouble], single)
    chosen, others = _one(postings, version, notes)
    if version is None and not chosen.missing:
        for other in others:
            _say_left(other, chosen, notes)
    return _result(chosen, others, single, notes)


def _result(chosen: _Posting, others: list[_Posting], single: list[Letter], notes: list[str]) -> Chosen:  # fmt: skip
    whole = _completed(chosen, others, single, notes)
    mails: list[Mail] = []
    trailers: dict[tuple[str, str], None] = {}
    for letter in (*([chosen.cover] if chosen.cover else []), *whole):
        trailers.update(dict.fromkeys(letter.trailers))
    for letter in whole:
        if letter.mail is not None:
            _ = letter.mail.files  # what is unsafe is refused
            mails.append(letter.mail)
        notes += [f"{letter.called}: {note}" for note in letter.notes]
    title = chosen.cover.tag.title if chosen.cover else None
    if title is None and len(chosen.patches) < len(
        whole
    ):  # sent again in part: the cover is that of the version before
        older = [p for p in others if p.version < chosen.version and p.cover]
        title = max(older, key=lambda p: p.version).first.tag.title if older else None
    return Chosen(title or None, tuple(mails), tuple(dict.fromkeys(notes)), tuple(trailers))


def _without_copies(letters: Sequence[Letter], notes: list[str]) -> list[Letter]:
    """Each mail once: by its Message-ID, or where it has none by what it says."""
    kept: dict[object, Letter] = {}
    copies = 0
    for letter in letters:
        key: object = letter.message_id or (
            letter.subject,
            letter.sender,
            letter.mail and letter.mail.diff,
            letter.trouble,
        )
        before = kept.setdefault(key, letter)
        if before is letter:
            continue
        if before.trouble and not letter.trouble:
            kept[key] = letter
        elif before.mail and letter.mail and before.mail.diff != letter.mail.diff:
            raise SeriesError(
                f"{before.called} and {letter.called} have one Message-ID and two different diffs: "
                "leave one of them out"
            )
        copies += 1
    if copies:
        notes.append(f"{copies} {'copy' if copies == 1 else 'copies'} of mails that are there already were left out")
    return list(kept.values())


def _patches(single: list[Letter], notes: list[str]) -> list[Letter]:
    """The mails that are patches of a series; the others, in words, to ``notes``."""
    tagged = [one for one in single if one.tag.patch and one.tag.number != 0]
    for one in tagged:
        if one.trouble:
            raise SeriesError(f"{one.called}: {one.trouble}")
    taken = [one for one in tagged if one.mail and not one.tag.fraction]
    with_diff = [one for one in single if one.mail]
    if not taken and len(with_diff) == 1 and (not with_diff[0].tag.answer or with_diff[0].titled):
        taken = with_diff
    answers = 0
    named: list[str] = []
    for one in single:
        if one in taken or one.tag.number == 0:
            continue
        if one.mail is None and not one.trouble:
            answers += one.tag.answer
            if not one.tag.answer and not one.tag.patch:
                named.append(f"{one.called}: it has no diff")
            continue
        named.append(f"{one.called}: {_why(one)}")
    if answers:
        notes.append("1 reply was left out" if answers == 1 else f"{answers} replies were left out")
    notes += [f"left out: {words}" for words in named[: 3 * FEW]]
    if len(named) > 3 * FEW:
        notes.append(f"{len(named) - 3 * FEW} more mails were left out")
    return _numbered(taken)


def _why(one: Letter) -> str:
    if one.tag.answer:
        return "it is a reply, though it has a diff" if one.mail else f"it is a reply, and {one.trouble}"
    if one.tag.fraction:
        return f"{one.tag.fraction} is no whole number: it comes after the series and does not count in it"
    return one.trouble or "its subject is not tagged as a patch ([PATCH ...]), and it is not the only mail with a diff"


def _numbered(taken: list[Letter]) -> list[Letter]:
    """None of several patches is without a number, unless each is a new version of one that has one."""
    if len(taken) < 2:
        return taken
    placed = {(one.message_id, one.mail.subject): one for one in taken if one.mail and one.tag.number is not None}
    found = []
    for one in taken:
        if one.tag.number is None and one.mail:
            old = next((placed[at] for p in one.parents if (at := (p, one.mail.subject)) in placed), None)
            if old is not None and (one.tag.version or 1) > (old.tag.version or 1):
                one = replace(one, tag=replace(one.tag, number=old.tag.number, total=old.tag.total))
        found.append(one)
    return found


def _nothing(single: list[Letter], notes: list[str]) -> str:
    """Why there is no patch, with the first of the mails that might have been one."""
    reasons = [f"{one.called}: {one.trouble}" for one in single if one.trouble]
    reasons += [note.removeprefix("left out: ") for note in notes if note.startswith("left out: ")]
    reasons = list(dict.fromkeys(reasons))[:FEW]
    return "no mail here has a patch" + (": " + "; ".join(reasons) if reasons else "")


# -- postings ---------------------------------------------------------------------------------------------------------


def _slip(letter: Letter, key: str) -> Slip:
    tag = letter.tag
    return Slip(key, letter.parents, letter.sender, letter.date, tag.version, tag.number, tag.total, tag.title,
                letter.mail is not None)  # fmt: skip


def _keys(letters: Sequence[Letter]) -> list[str]:
    return [letter.message_id or f"kvmirror.{at}@none.invalid" for at, letter in enumerate(letters)]


def _postings(patches: list[Letter], covers: list[Letter], single: list[Letter]) -> list[_Posting]:
    """The patches by what was posted together."""
    everything = list(dict.fromkeys([*patches, *covers, *single]))
    keys = dict(zip(everything, _keys(everything), strict=True))
    slips = [_slip(one, keys[one]) for one in everything]
    thread: dict[str, int] = {}
    for number, ids in enumerate(threads.threads(slips)):
        thread.update(dict.fromkeys(ids, number))
    versions = threads.revisions([_slip(one, keys[one]) for one in (*patches, *covers)])
    joined = _joined([*patches, *covers], {one: thread[keys[one]] for one in everything})
    found: list[_Posting] = []
    for letter in sorted(patches, key=lambda one: (one.tag.again, threads.seconds(one.date))):
        version = letter.tag.version or versions.get(keys[letter], 1)
        number = 1 if letter.tag.number is None else letter.tag.number
        kind = version, letter.tag.again, letter.tag.draft
        fits = [p for p in found if (p.kind, p.total, p.thread) == (kind, letter.tag.total, joined[letter])]
        open_ = [p for p in fits if number not in p.patches]
        if len(open_) > 1:
            open_ = [p for p in open_ if letter.sender in p.senders] or open_
        if not open_:
            open_ = [_Posting(version, letter.tag.total, letter.tag.again, letter.tag.draft, joined[letter])]
            found += open_
        open_[0].patches[number] = letter
    for cover in covers:
        version = cover.tag.version or 1
        for posting in found:
            if posting.cover is None and posting.thread == joined[cover] and _covers(cover, posting, version):
                posting.cover = cover
    return found


def _covers(cover: Letter, posting: _Posting, version: int) -> bool:
    if cover.tag.number is None and not any(cover.message_id in one.parents for one in posting.patches.values()):
        return False
    kind = version, cover.tag.again, cover.tag.draft
    return kind == posting.kind and cover.tag.total in (None, posting.total)


def _stems(letter: Letter) -> list[tuple[str, str]]:
    """What is left and right of a patch's number in its Message-ID, where git send-email and b4 put it (git counts the
    cover as 1)."""
    number = letter.tag.number
    if number is None:
        return []
    found = re.finditer(r"\d{1,4}", letter.message_id)
    return [
        (letter.message_id[: m.start()], letter.message_id[m.end() :]) for m in found if int(m[0]) - number in (0, 1)
    ]


def _joined(letters: list[Letter], thread: dict[Letter, int]) -> dict[Letter, int]:
    """A number for each mail, equal for those that can be of one posting or of versions of one: of one thread, with
    Message-IDs counted on from one stem, with one that has no Message-ID, as git format-patch writes them, or by one
    sender who starts a thread with each."""
    group = {one: at for at, one in enumerate(letters)}
    seen: dict[object, Letter] = {}
    loose = {(one.tag.words, one.tag.total) for one in letters if not one.message_id}
    for one in letters:
        marks: list[object] = [("thread", thread[one])]
        words = (one.tag.words, one.tag.total)
        marks += [("stem", stem, words) for stem in _stems(one)]
        if words in loose or not one.message_id:
            marks.append(("a file", words))
        if not one.parents and one.tag.number is not None:
            marks.append(("sender", one.sender, words))
        for mark in marks:
            other = seen.setdefault(mark, one)
            old, new = group[one], group[other]
            if old != new:
                group = {letter: new if at == old else at for letter, at in group.items()}
    return group


# -- versions ---------------------------------------------------------------------------------------------------------


def _one(postings: list[_Posting], version: int | None, notes: list[str]) -> tuple[_Posting, list[_Posting]]:
    """The posting that is meant, and the others of the same series (versions, and what was posted beside it)."""
    families = _families(postings)
    if len(families) > 1:
        names = " and ".join(_newest(family).told() for family in families[:FEW])
        missing = "; ".join(_lack(p) for p in (_newest(family) for family in families[:FEW]) if p.missing)
        raise SeriesError(
            f"the mails are of {'two' if len(families) == 2 else len(families)} series: {names}: "
            "give one series at a time" + (f" ({missing})" if missing else "")
        )
    (family,) = families
    wanted = family
    if version is not None:
        wanted = [posting for posting in family if posting.version == version]
        if not wanted:
            have = ", ".join(f"v{number}" for number in sorted({posting.version for posting in family}))
            raise InputError(f"--version {version}: the mails given have {have}; name one of these")
    chosen = _newest(wanted)
    return chosen, [posting for posting in family if posting is not chosen]


def _newest(family: Iterable[_Posting]) -> _Posting:
    """Of the main line of a family the newest: the highest version, then what was sent again, then what came last.

    An RFC counts its versions apart, as often as not: beside other postings it is the newest only where it came later.
    """
    postings = list(family)
    root = _root(postings)
    line = [p for p in postings if p is root or _follows(p, root) or (p.again and p.titles & root.titles)]

    def newest(draft: bool) -> _Posting | None:
        alike = [p for p in line if p.draft is draft]
        return max(alike, key=lambda p: (p.version, p.again, len(p.patches) == (p.total or 1), p.date), default=None)

    final, draft = newest(False), newest(True)
    if final is None or draft is None:
        return final or draft or root
    return draft if draft.date > final.date > 0 else final


def _root(postings: list[_Posting]) -> _Posting:
    """The posting that the others are about: it answers none of them, has most patches, and came first."""
    ids = {letter.message_id for p in postings for letter in (*p.patches.values(), *([p.cover] if p.cover else []))}

    def answers(posting: _Posting) -> bool:
        own = {one.message_id for one in posting.patches.values()} | {posting.first.message_id}
        return any(parent in ids - own for parent in posting.first.parents)

    return min(postings, key=lambda p: (answers(p), -len(p.patches), p.date))


def _follows(posting: _Posting, root: _Posting) -> bool:
    """Whether a posting is another version of the same series: by the same people, or with titles or the length of
    the other."""
    if (posting.version, posting.draft) == (root.version, root.draft):
        return False
    return bool(posting.senders & root.senders or posting.titles & root.titles or posting.total == root.total)


def _families(postings: list[_Posting]) -> list[list[_Posting]]:
    """Postings of one series together: those of one thread, and versions by the same people or with the same titles."""
    families: list[list[_Posting]] = []
    for posting in postings:
        near = [family for family in families if any(_akin(posting, other) for other in family)]
        families = [family for family in families if family not in near]
        families.append([*(one for family in near for one in family), posting])
    return families


def _akin(one: _Posting, other: _Posting) -> bool:
    revised = (one.version, one.draft) != (other.version, other.draft)
    if one.thread == other.thread and (revised or one.total == other.total or _inside(one, other)):
        return True
    same = one.titles & other.titles
    return (bool(same) and one.kind != other.kind) or (
        revised and bool(one.senders & other.senders) and one.total is not None
    )


def _inside(one: _Posting, other: _Posting) -> bool:
    """Whether one of two postings was sent as an answer to the other, or within its thread."""
    return bool(one.first.parents or other.first.parents)


def _say_left(other: _Posting, chosen: _Posting, notes: list[str]) -> None:
    if other.version != chosen.version:
        notes.append(
            f"{chosen.called} was taken; left out: {other.told()}"
            + ("" if other.missing else f": --version {other.version} takes it")
        )
    elif other.draft != chosen.draft:
        notes.append(f"the {_kind(chosen)} was taken, the {_kind(other)} left out: {other.told()}")
    elif chosen.again and other.titles & chosen.titles:
        notes.append(f"the series was sent again, and the later mails were taken; left out: {other.told()}")
    else:
        notes.append(f"left out: {other.told()}, posted by {', '.join(map(harmless, sorted(other.senders)))} beside it")


def _kind(posting: _Posting) -> str:
    """What a posting is beside another of the same version."""
    came = threads.day(posting.first.date)
    return ("RFC" if posting.draft else "series that is no RFC") + (f" of {came}" if came else "")


def _completed(chosen: _Posting, others: list[_Posting], single: list[Letter], notes: list[str]) -> list[Letter]:
    """The patches in order, with those of the version before where only some were sent again."""
    _alone(chosen)
    for other in others:
        same = other.kind == chosen.kind and other.total == chosen.total
        if same and other.titles & chosen.titles and other.senders & chosen.senders:
            for number, letter in other.patches.items():
                if number in chosen.patches:
                    raise SeriesError(
                        f"patch {number} is there twice: {chosen.patches[number].called} and {letter.called}: "
                        "leave one of them out"
                    )
    extra = [n for n in chosen.patches if chosen.total is not None and not 1 <= n <= chosen.total]
    for number in extra:
        letter = chosen.patches.pop(number)
        notes.append(f"left out: {letter.called}: number {number} is not among 1 to {chosen.total}")
    _by_one(chosen)
    if not chosen.missing:
        return [chosen.patches[n] for n in sorted(chosen.patches)]
    whole = [letter for p in (*others, chosen) for letter in p.patches.values()]
    keys = _keys(whole)
    slips = [_slip(one, key) for one, key in zip(whole, keys, strict=True)]
    slips = [replace(slip, version=p.version) for slip, p in
             zip(slips, [p for p in (*others, chosen) for _ in p.patches], strict=True)]  # fmt: skip
    ids = threads.rerolled(slips, chosen.version) if chosen.version > 1 else None
    if ids is None:
        raise SeriesError(_missing(chosen, others, single))
    by_key = dict(zip(keys, whole, strict=True))
    found = [by_key[key] for key in ids]
    renewed = ", ".join(str(n) for n in sorted(chosen.patches))
    notes.append(
        f"version {chosen.version} was sent of patch {renewed} alone: the others are those of the version before"
    )
    return [
        replace(one, mail=replace(one.mail, number=n, version=chosen.version)) if one.mail else one
        for n, one in enumerate(found, 1)
    ]


def _by_one(chosen: _Posting) -> None:
    """A patch that another person posted, in answer to a mail that is not here, is none of the series."""
    letters = list(chosen.patches.values())
    senders = Counter(letter.sender for letter in letters)
    answered = Counter(letter.parents[:1] for letter in letters)
    known = {letter.message_id for letter in (*letters, *([chosen.cover] if chosen.cover else []))}
    for number, letter in chosen.patches.items():
        strange = senders[letter.sender] * 2 < len(letters) and answered[letter.parents[:1]] * 2 < len(letters)
        if strange and letter.parents and letter.parents[0] not in known:
            raise SeriesError(
                f"patch {number} of {chosen.total} is missing among the mails given: {letter.called} was posted by "
                f"{harmless(letter.sender)} in answer to a mail that is not here; give that mail and the patch too"
            )


def _alone(chosen: _Posting) -> None:
    if chosen.total is None and len(chosen.patches) > 1:
        names = " and ".join(letter.called for letter in list(chosen.patches.values())[:2])
        raise SeriesError(f"{len(chosen.patches)} patches have no number, as {names}: give one, or a numbered series")


def _lack(posting: _Posting) -> str:
    return f"patch {posting.missing[0]} of {posting.total} of {harmless(posting.first.tag.title, 60)!r} is missing"


def _missing(chosen: _Posting, others: list[_Posting], single: list[Letter]) -> str:
    many = len(chosen.missing)
    words = f"patch {', '.join(map(str, chosen.missing[:FEW]))}{' ...' if many > FEW else ''} of {chosen.total}"
    words += f" of version {chosen.version}" if chosen.version > 1 or others else ""
    words += f" {'is' if many == 1 else 'are'} missing among the mails given"
    for number in chosen.missing[:1]:
        for one in single:
            if one.mail is None and not one.tag.answer and one.tag.number == number and one.tag.patch:
                words += f"; {one.called} has no diff"
        loose = [one for one in single if one.mail and not one.tag.answer and one.tag.number is None]
        if loose:
            words += f"; {loose[0].called} has a diff and no number"
    older = [p for p in others if not p.missing and p.version != chosen.version]
    if older:
        words += f"; version {older[0].version} is whole: --version {older[0].version} takes it"
    return words
