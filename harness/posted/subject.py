"""What the subject of a mail says: its tags in brackets, its place in a series, and whether it answers another."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from harness.posted.threads import PatchSubject, parse_patch_subject

MOST: Final = 1000  # characters that are looked at
_BRACKET = re.compile(r"\s*\[([^\[\]]*)\]\s*")
_FRACTION = re.compile(r"(?<![\d./])(\d+\.\d+)\s*/\s*(\d+)(?![\d./])")
_NUMBER = re.compile(r"\d{1,4}\s*/\s*\d{1,4}")
_OF_LISTS: Final = re.compile(r"(?i)(rfc|rft|resend|repost|v\d+|patch(v\d+)?|\d{1,4}/\d{1,4}|[\d.]+/\d+)[,;:]?")
_PATCH = re.compile(r"(?i)\[[^\]]*\b(patch|rfc)(v\d+)?\b[^\]]*\]")
_ANSWER = re.compile(
    r"(?i)(re|aw|fwd?|sv|vs|antw|wg|tr|odp|ref|rv|res|enc|ynt|doorst|回复|答复|转发)(\[\d+\])?\s*[:\uff1a]"
)


@dataclass(frozen=True, slots=True)
class Tag:
    """This is a subject taken apart. ``number`` of ``total``: its place, None where it says none; ``fraction``: a place
    between two others, as posted (2.5/3). ``version`` is None where none is said. ``patch``: it is tagged as one to be
    applied. ``answer``: something stands before that tag, so that it is about a posting and is none. ``draft``: it is
    an RFC. ``words``: what else the tags say (a tree, another project), in small letters.
    """

    number: int | None
    total: int | None
    fraction: str
    version: int | None
    patch: bool
    answer: bool
    again: bool
    draft: bool
    words: tuple[str, ...]
    title: str


def read(subject: str) -> Tag:
    """The function takes a decoded subject apart."""
    flat = _plain(" ".join(subject[:MOST].split()))
    rest, words = _untagged(flat)
    said: PatchSubject = parse_patch_subject(flat.replace("=?", "= ?"))  # it is decoded, and not twice
    head = flat[: len(flat) - len(rest)]
    tagged = _PATCH.search(flat)
    answer = said.is_reply or (not _PATCH.search(head) and bool(_ANSWER.match(rest)))
    if tagged and not answer:
        before = flat[: tagged.start()]
        answer = bool(before) and not re.fullmatch(r"(\s*\[[^\[\]]*\]\s*)+", before)
    fraction = "" if answer else (found[0] if (found := _FRACTION.search(head)) else "")
    numbered = not said.counters_inferred and not fraction
    patch = bool(tagged) or (numbered and bool(_NUMBER.search(head)))
    lowered = tuple(sorted(w.lower() for w in words if not _OF_LISTS.fullmatch(w)))
    return Tag(
        said.counter if numbered else None,
        said.expected if numbered else None,
        fraction,
        None if said.version_inferred else said.version,
        patch and not answer,
        answer,
        any(w.lower().startswith(("resend", "repost")) for w in words),
        any(re.fullmatch(r"(?i)rfc(v\d+)?", w) for w in words),
        lowered,
        rest,
    )


def _plain(subject: str) -> str:
    """The subject on one line, with its tags as git writes them: no bracket within another, words parted by spaces."""
    flat = subject
    for _ in range(4):  # [PATCH [RFC] 1/2], [[PATCH] 1/2]
        flat = re.sub(r"^((?:\[[^\[\]]*\]\s*)*\[[^\[\]]*)\[([^\[\]]*)\]", r"\1 \2", flat)

    def words(tag: re.Match[str]) -> str:
        inner = re.sub(r"(?<=\d)\s*/\s*(?=\d)", "/", re.sub(r"[,;]", " ", tag[0]))
        return re.sub(r"(?i)(patch)(v\d+)", r"\1 \2", inner)

    return re.sub(r"^(\s*\[[^\[\]]*\])+", words, flat)


def _untagged(subject: str) -> tuple[str, list[str]]:
    """The subject without the tags that lists and git put before it, and the words of those.

    A tag after the one that says PATCH is the author's own, unless it says nothing but what lists say.
    """
    rest, patched, tagged = subject, False, bool(_PATCH.search(subject))
    words: list[str] = []
    while True:
        found = _BRACKET.match(rest)
        if found is None:
            return rest.strip(), words
        tokens = found[1].split()
        listed = all(_OF_LISTS.fullmatch(token) for token in tokens)
        if not listed and (patched or not tagged):
            numbered = any(_NUMBER.fullmatch(token) for token in tokens)
            if not numbered:
                return rest.strip(), words
        patched = patched or any(re.match(r"(?i)patch|rfc", token) for token in tokens)
        words += tokens
        rest = rest[found.end() :]


def answering(tag: Tag) -> Tag:
    """The function gives the tag of a mail that was attached to an answer."""
    return replace(tag, answer=True, patch=False)


def placed(tag: Tag, other: Tag) -> Tag:
    """The function gives ``tag`` at the place, and with the version, that ``other`` says."""
    version = tag.version if other.version is None else other.version
    return replace(tag, number=other.number, total=other.total, version=version, patch=tag.patch or other.patch)


def counted(tag: Tag, number: int, total: int) -> Tag:
    """The tag of the ``number``th of ``total`` patches that are attached to one mail and have no numbers."""
    return replace(tag, number=number, total=total, patch=True)
